"""Where shards are worked on: every job once, and only what kills its worker is left out."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cloudpickle  # type: ignore[import-untyped]
import dask
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mser.cache import EntrySpec, EntryWriter
from mser.cache.storage.local import LocalFolder
from mser.pipeline.compute import Backend
from mser.pipeline.encoders import EncoderSettings
from mser.pipeline.encoders.checkpoint_files import EncoderFiles
from mser.pipeline.extract.engine import WORKER_SIZING, Work, run_shards
from mser.pipeline.extract.sharding import PlannedUtterance, ShardJob, plan
from mser.pipeline.extract.worker import ShardReport

ENCODER = EncoderSettings(EncoderFiles("small", Path("small")), "bert")
SPEC = EntrySpec("meld", "text", "small", {}, layers=(0, 1), dim=8, dtype="float16")
WRITER = EntryWriter(LocalFolder(Path("entry")), SPEC, {})


def item(id: str, frames: int = 10) -> PlannedUtterance:
    return PlannedUtterance(id, "a text", f"hash of {id}", frames)


def job(number: int, *ids: str) -> ShardJob:
    return ShardJob(number, f"lease-{number}", ENCODER, WRITER, tuple(item(id) for id in ids))


def store(one: ShardJob) -> ShardReport:
    """Do one job, without features; some ids are poison."""
    for each in one.items:
        if each.id.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if each.id.startswith("raise"):
            raise ZeroDivisionError(f"{each.id} divides by zero")
    return ShardReport(one, tuple(each.id for each in one.items))


def done(work: Work, jobs: list[ShardJob], workers: int) -> list[ShardReport]:
    return list(run_shards(work, jobs, Backend(WORKER_SIZING, workers), torch.device("cpu")))


def where(one: ShardJob) -> ShardReport:
    return ShardReport(one, (str(os.getpid()),))


class Sent:
    """Work that is sent to a worker as it is, for a worker cannot import a test."""

    def __init__(self, work: Callable[[ShardJob], ShardReport]) -> None:
        self.work = work

    def __call__(self, one: ShardJob) -> ShardReport:
        return self.work(one)

    def __reduce__(self):
        module = sys.modules[__name__]
        cloudpickle.register_pickle_by_value(module)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self.work),)
        finally:
            cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done_once(workers):
    jobs = [job(number, f"a{number}", f"b{number}") for number in range(6)]
    reports = done(Sent(store), jobs, workers)
    assert sorted(report.job.number for report in reports) == list(range(6))
    for report in reports:
        assert report.job == jobs[report.job.number]
        assert report.stored == tuple(each.id for each in report.job.items)
        assert report.quarantined == ()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_jobs_no_reports(workers):
    assert done(Sent(store), [], workers) == []


def test_without_workers_the_work_is_done_here():
    assert [report.stored for report in done(Sent(where), [job(0, "a")], 0)] == [
        (str(os.getpid()),)
    ]


def test_with_workers_the_work_is_done_elsewhere():
    shards = {report.stored for report in done(Sent(where), [job(n, "a") for n in range(4)], 2)}
    assert (str(os.getpid()),) not in shards
    assert len(shards) <= 2


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_only_the_utterance_that_kills_its_worker_is_left_out():
    jobs = [
        job(0, "a", "b", "c"),
        job(1, "d", "kill"),
        *(job(number, f"e{number}", f"f{number}") for number in range(2, 8)),
    ]
    # A worker that dies while it is looked for must come back however long that takes.
    impatient = {"distributed.deploy.lost-worker-timeout": "500ms"}
    with no_longer_than(300), dask.config.set(impatient):
        reports = done(Sent(store), jobs, 2)
    crashed = [bad for report in reports for bad in report.quarantined]
    assert [(bad.id, bad.reason, bad.content_hash) for bad in crashed] == [
        ("kill", "crash", "hash of kill")
    ]
    stored = [id for report in reports for id in report.stored]
    assert len(stored) == len(set(stored))
    assert set(stored) == {each.id for one in jobs for each in one.items} - {"kill"}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_ends_the_run_as_it_is(workers):
    jobs = [job(0, "a"), job(1, "raise"), job(2, "b")]
    with pytest.raises(ZeroDivisionError, match="raise divides by zero"):
        done(Sent(store), jobs, workers)


def test_halves_of_a_job():
    whole = job(3, "a", "b", "c")
    first, second = whole.halves()
    assert first.items + second.items == whole.items
    assert first.items
    assert second.items
    assert replace(first, items=whole.items) == whole
    assert job(3, "a").halves() == []


lengths = st.lists(st.integers(1, 400), max_size=40)
sizes = st.integers(1, 3_000_000)


def planned(frames: list[int], pending, shard_bytes: int) -> list[ShardJob]:
    items = [item(f"{at:03}", length) for at, length in enumerate(frames)]
    return plan(items, pending, ENCODER, WRITER, shard_bytes)


@given(frames=lengths, shard_bytes=sizes)
def test_a_plan_holds_everything_exactly_once(frames, shard_bytes):
    everything = {f"{at:03}" for at in range(len(frames))}
    jobs = planned(frames, everything, shard_bytes)
    found = [each.id for one in jobs for each in one.items]
    assert len(found) == len(everything)
    assert set(found) == everything
    assert len({one.number for one in jobs}) == len(jobs)
    for one in jobs:
        size = sum(each.frames for each in one.items) * SPEC.bytes_per_frame
        assert size <= shard_bytes or len(one.items) == 1


@given(frames=lengths, shard_bytes=sizes, data=st.data())
def test_a_plan_keeps_what_is_pending_where_it_would_be_anyway(frames, shard_bytes, data):
    everything = sorted(f"{at:03}" for at in range(len(frames)))
    pending = data.draw(st.sets(st.sampled_from(everything))) if everything else set()
    whole = {one.number: one for one in planned(frames, set(everything), shard_bytes)}
    part = planned(frames, pending, shard_bytes)
    assert {each.id for one in part for each in one.items} == pending
    for one in part:
        assert one.items
        kept = tuple(each for each in whole[one.number].items if each.id in pending)
        assert one.items == kept


def test_a_clip_shorter_than_a_frame_is_planned_too():
    """Only decoding shows how long it is in truth."""
    jobs = planned([0, 5, 0], {"000", "001", "002"}, 1000)
    assert sorted(each.id for one in jobs for each in one.items) == ["000", "001", "002"]


@given(frames=st.lists(st.integers(1, 400), min_size=2, max_size=20))
def test_utterances_of_like_length_lie_together(frames):
    jobs = planned(frames, {f"{at:03}" for at in range(len(frames))}, 5000)
    ordered = [each.frames for one in jobs[::-1] for each in one.items]
    assert ordered == sorted(frames)


@given(frames=lengths, shard_bytes=sizes, data=st.data())
def test_a_plan_does_not_depend_on_the_order_of_the_corpus(frames, shard_bytes, data):
    items = [item(f"{at:03}", length) for at, length in enumerate(frames)]
    shuffled = data.draw(st.permutations(items))
    everything = {each.id for each in items}
    assert plan(shuffled, everything, ENCODER, WRITER, shard_bytes) == plan(
        items, everything, ENCODER, WRITER, shard_bytes
    )
