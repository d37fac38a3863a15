"""Dispatch of shards: every job is done once, and only utterances that kill workers fail."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
from mser.pipeline.compute.dask_cluster import Cluster
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.encoders import EncoderSettings
from mser.pipeline.encoders.checkpoint_files import EncoderFiles
from mser.pipeline.extract.engine import WORKER_SIZING, Work, run_shards
from mser.pipeline.extract.sharding import PlannedUtterance, ShardJob, plan_shards
from mser.pipeline.extract.worker import ShardReport

ENCODER = EncoderSettings(EncoderFiles("small", Path("small")), "bert")
SPEC = EntrySpec("meld", "text", "small", {}, layers=(0, 1), dim=8, dtype="float16")
WRITER = EntryWriter(LocalFolder(Path("entry")), SPEC, {})


def make_item(id: str, frames: int = 10) -> PlannedUtterance:
    return PlannedUtterance(id, "a text", f"hash of {id}", frames)


def make_job(number: int, *ids: str) -> ShardJob:
    return ShardJob(number, f"lease-{number}", ENCODER, WRITER, tuple(make_item(id) for id in ids))


def store(job: ShardJob) -> ShardReport:
    """Do a job without features; some ids kill the worker or raise an error."""
    for item in job.items:
        if item.id.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if item.id.startswith("raise"):
            raise ZeroDivisionError(f"{item.id} divides by zero")
    return ShardReport(job, tuple(item.id for item in job.items))


def reports_of(work: Work, jobs: list[ShardJob], backend: Backend) -> list[ShardReport]:
    return list(run_shards(work, jobs, backend, torch.device("cpu")))


pytestmark = pytest.mark.usefixtures("quick_workers")


@pytest.fixture(scope="module")
def two_workers(quick_workers) -> Iterator[Cluster]:
    """Two worker processes, which start once for several tests."""
    with local_cluster(2, 2, []) as cluster:
        yield cluster


@pytest.fixture
def in_workers(two_workers: Cluster, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend of two worker processes that run already."""
    monkeypatch.setattr(Backend, "cluster", lambda *_: nullcontext(two_workers))
    return Backend(WORKER_SIZING, 2)


IN_PROCESS = Backend(WORKER_SIZING, 0)


@pytest.fixture(params=["in_process", "in_workers"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.getfixturevalue("in_workers") if request.param == "in_workers" else IN_PROCESS


def where(job: ShardJob) -> ShardReport:
    return ShardReport(job, (str(os.getpid()),))


class Sent:
    """Work that is pickled by value, because a worker cannot import a test."""

    def __init__(self, work: Callable[[ShardJob], ShardReport]) -> None:
        self.work = work

    def __call__(self, job: ShardJob) -> ShardReport:
        return self.work(job)

    def __reduce__(self):
        module = sys.modules[__name__]
        cloudpickle.register_pickle_by_value(module)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self.work),)
        finally:
            cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail instead of waiting forever."""

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
    # Before ``two_workers`` starts: beside another cluster, each worker is a new Python process.
    jobs = [
        make_job(0, "a", "b", "c"),
        make_job(1, "d", "kill"),
        *(make_job(number, f"e{number}", f"f{number}") for number in range(2, 8)),
    ]
    # A worker that dies must come back, however long that takes.
    impatient = {"distributed.deploy.lost-worker-timeout": "500ms"}
    with no_longer_than(300), dask.config.set(impatient):
        reports = reports_of(Sent(store), jobs, Backend(WORKER_SIZING, 2))
    crashed = [bad for report in reports for bad in report.quarantined]
    assert [(bad.id, bad.reason, bad.content_hash) for bad in crashed] == [
        ("kill", "crash", "hash of kill")
    ]
    stored = [id for report in reports for id in report.stored]
    assert len(stored) == len(set(stored))
    assert set(stored) == {item.id for job in jobs for item in job.items} - {"kill"}


def test_every_job_is_done_once(backend):
    jobs = [make_job(number, f"a{number}", f"b{number}") for number in range(6)]
    reports = reports_of(Sent(store), jobs, backend)
    assert sorted(report.job.number for report in reports) == list(range(6))
    for report in reports:
        assert report.job == jobs[report.job.number]
        assert report.stored == tuple(item.id for item in report.job.items)
        assert report.quarantined == ()


def test_no_jobs_no_reports(backend):
    assert reports_of(Sent(store), [], backend) == []


def test_without_workers_this_process_does_the_work():
    assert [
        report.stored for report in reports_of(Sent(where), [make_job(0, "a")], IN_PROCESS)
    ] == [(str(os.getpid()),)]


def test_workers_are_other_processes(in_workers):
    shards = {
        report.stored
        for report in reports_of(Sent(where), [make_job(n, "a") for n in range(4)], in_workers)
    }
    assert (str(os.getpid()),) not in shards
    assert len(shards) <= 2


def test_an_exception_ends_the_run_unchanged(backend):
    jobs = [make_job(0, "a"), make_job(1, "raise"), make_job(2, "b")]
    with pytest.raises(ZeroDivisionError, match="raise divides by zero"):
        reports_of(Sent(store), jobs, backend)


def test_halves_of_a_job():
    whole = make_job(3, "a", "b", "c")
    first, second = whole.halves()
    assert first.items + second.items == whole.items
    assert first.items
    assert second.items
    assert replace(first, items=whole.items) == whole
    assert make_job(3, "a").halves() == []


lengths = st.lists(st.integers(1, 400), max_size=40)
sizes = st.integers(1, 3_000_000)


def planned(frames: list[int], pending, shard_bytes: int) -> list[ShardJob]:
    items = [make_item(f"{number:03}", length) for number, length in enumerate(frames)]
    return plan_shards(items, pending, ENCODER, WRITER, shard_bytes)


@given(frames=lengths, shard_bytes=sizes)
def test_a_plan_holds_everything_exactly_once(frames, shard_bytes):
    everything = {f"{number:03}" for number in range(len(frames))}
    jobs = planned(frames, everything, shard_bytes)
    ids = [item.id for job in jobs for item in job.items]
    assert len(ids) == len(everything)
    assert set(ids) == everything
    assert len({job.number for job in jobs}) == len(jobs)
    for job in jobs:
        size = sum(item.frames for item in job.items) * SPEC.bytes_per_frame
        assert size <= shard_bytes or len(job.items) == 1


@given(frames=lengths, shard_bytes=sizes, data=st.data())
def test_pending_utterances_keep_their_shard(frames, shard_bytes, data):
    everything = sorted(f"{number:03}" for number in range(len(frames)))
    pending = data.draw(st.sets(st.sampled_from(everything))) if everything else set()
    whole = {job.number: job for job in planned(frames, set(everything), shard_bytes)}
    part = planned(frames, pending, shard_bytes)
    assert {item.id for job in part for item in job.items} == pending
    for job in part:
        assert job.items
        kept = tuple(item for item in whole[job.number].items if item.id in pending)
        assert job.items == kept


def test_a_clip_shorter_than_a_frame_is_planned_too():
    """Only decoding gives its true length."""
    jobs = planned([0, 5, 0], {"000", "001", "002"}, 1000)
    assert sorted(item.id for job in jobs for item in job.items) == ["000", "001", "002"]


@given(frames=st.lists(st.integers(1, 400), min_size=2, max_size=20))
def test_utterances_of_similar_length_share_a_shard(frames):
    jobs = planned(frames, {f"{number:03}" for number in range(len(frames))}, 5000)
    ordered = [item.frames for job in jobs[::-1] for item in job.items]
    assert ordered == sorted(frames)


@given(frames=lengths, shard_bytes=sizes, data=st.data())
def test_a_plan_does_not_depend_on_the_order_of_the_corpus(frames, shard_bytes, data):
    items = [make_item(f"{number:03}", length) for number, length in enumerate(frames)]
    shuffled = data.draw(st.permutations(items))
    everything = {item.id for item in items}
    assert plan_shards(shuffled, everything, ENCODER, WRITER, shard_bytes) == plan_shards(
        items, everything, ENCODER, WRITER, shard_bytes
    )
