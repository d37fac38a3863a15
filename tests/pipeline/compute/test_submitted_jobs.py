"""SLURM jobs that end are submitted again while the work advances."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from mser.pipeline.compute import submitted_jobs
from mser.pipeline.compute.submitted_jobs import SubmittedJobs, job_states
from mser.pipeline.errors import PipelineError


class Queue:
    """A cluster as dask-jobqueue keeps one, and SLURM's states of its jobs."""

    def __init__(self, jobs: int) -> None:
        self.worker_spec: dict[str, object] = {}
        self.workers: dict[str, SimpleNamespace] = {}
        self.states: dict[str, str] = {}
        self.number = 0
        for _ in range(jobs):
            self.worker_spec |= self.new_worker_spec()
        self.submit()

    def new_worker_spec(self) -> dict[str, object]:
        while (name := f"mser-{self.number}") in self.worker_spec:
            self.number += 1
        return {name: {}}

    def submit(self) -> None:
        """Bring the jobs in line with ``worker_spec``."""
        for name in set(self.workers) - set(self.worker_spec):
            del self.workers[name]
        for name in set(self.worker_spec) - set(self.workers):
            job = str(100 + len(self.states))
            self.workers[name] = SimpleNamespace(job_id=job)
            self.states[job] = "PENDING"

    def end(self, state: str) -> None:
        """Let all jobs end, in a state."""
        for job in self.workers.values():
            self.states[job.job_id] = state


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(jobs=2)
    monkeypatch.setattr(submitted_jobs, "job_states", lambda jobs: queue.states)
    return queue


def states(queue: Queue) -> Counter[str]:
    return Counter(queue.states.values())


@pytest.mark.parametrize("state", ["TIMEOUT", "CANCELLED", "FAILED", "NODE_FAIL", "COMPLETING"])
def test_each_job_that_ended_is_submitted_again(queue, capfd, state):
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: None)
    jobs.check()
    assert states(queue) == {"PENDING": 2}
    for round_ in range(1, 4):
        queue.end(state)
        jobs.check()
        assert states(queue) == {"PENDING": 2, state: 2 * round_}
        assert jobs.ended == 2 * round_
    assert capfd.readouterr().err.splitlines()[0] == (
        f"mser: SLURM job 100 ended ({state}): submitting another one"
    )


@pytest.mark.parametrize("state", ["RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED"])
def test_a_job_that_waits_or_runs_is_left_alone(queue, state):
    queue.end(state)
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: None)
    jobs.check()
    assert states(queue) == {state: 2}
    assert jobs.ended == 0


@pytest.mark.parametrize(
    ("state", "advice"), [("TIMEOUT", "longer walltime"), ("OUT_OF_MEMORY", "more memory")]
)
def test_without_an_advance_jobs_are_not_submitted_for_ever(queue, state, advice):
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: "the same")
    for _ in range(3):
        queue.end(state)
        jobs.check()
    queue.end(state)
    with pytest.raises(PipelineError, match=rf"8 SLURM jobs .* last one: {state}\).*{advice}"):
        jobs.check()
    assert states(queue) == {state: 8}


def test_what_was_finished_and_saved_states_are_an_advance(queue):
    saved = [0]
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: saved[0])
    for round_ in range(1, 20):
        queue.end("TIMEOUT")
        if round_ % 3 == 0:
            jobs.advanced()
        elif round_ % 3 == 1:
            saved[0] += 1
        jobs.check()
    assert states(queue) == {"TIMEOUT": 38, "PENDING": 2}


def test_squeue_is_not_asked_all_the_time(queue, monkeypatch):
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: None)
    queue.end("TIMEOUT")
    jobs.keep_up()
    assert states(queue) == {"TIMEOUT": 2}
    monkeypatch.setattr(submitted_jobs, "_CHECK_SECONDS", 0.0)
    jobs.keep_up()
    assert states(queue) == {"TIMEOUT": 2, "PENDING": 2}


SQUEUE = """#!/bin/sh
for option; do case $option in --jobs=7,8) echo "7 RUNNING"; echo "8 OUT_OF_MEMORY"; exit 0;; esac
done
echo "slurm_load_jobs error: {error}" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("error", "of_others"),
    [("Invalid job id specified", {}), ("Unable to contact slurm controller", None)],
)
def test_the_states_are_those_of_squeue(tmp_path: Path, monkeypatch, error, of_others):
    (tmp_path / "squeue").write_text(SQUEUE.format(error=error))
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert job_states(["7", "8"]) == {"7": "RUNNING", "8": "OUT_OF_MEMORY"}
    assert job_states(["9"]) == of_others


def test_without_squeue_or_its_answer_no_job_has_ended(tmp_path, monkeypatch, queue):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_states(["7"]) is None
    monkeypatch.setattr(submitted_jobs, "job_states", lambda jobs: None)
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: None)
    queue.end("TIMEOUT")
    jobs.check()
    assert jobs.ended == 0


def test_a_job_without_enough_memory_is_noted_with_advice(queue, capfd):
    jobs = SubmittedJobs(queue, queue.submit, "slurm.toml", lambda: None)
    queue.end("OUT_OF_MEMORY")
    jobs.check()
    notes = capfd.readouterr().err.splitlines()
    assert [note.partition("(")[2] for note in notes] == [
        "OUT_OF_MEMORY): submitting another one; if this comes again, give more memory, or fewer "
        "processes"
    ] * 2
