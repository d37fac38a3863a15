"""Dispatch of jobs in this process: on the calling thread, or on threads of their own."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from mser.pipeline.compute import Backend, WorkerRequirements, WorkerSizing, run_jobs

BACKEND = Backend(WorkerSizing(lambda _: 1, lambda _, cores: cores), workers=0)
THREADS = pytest.mark.parametrize("threads", [0, 1, 3])


@dataclass
class Done:
    number: int
    thread: threading.Thread
    busy: bool = False


def no_requirements() -> WorkerRequirements:
    raise AssertionError("this process was checked")


def run(work: Callable[[int], Done], jobs: range, threads: int, pause: float = 0.0):
    device = torch.device("cpu")
    return run_jobs(work, jobs, BACKEND, device, no_requirements, threads=threads, pause=pause)


@THREADS
def test_every_job_is_done_once_on_the_right_thread(threads):
    reports = dict(run(lambda job: Done(job, threading.current_thread()), range(7), threads))
    assert {job: report.number for job, report in reports.items()} == {n: n for n in range(7)}
    here = {report.thread is threading.current_thread() for report in reports.values()}
    assert here == {threads == 0}


@THREADS
def test_busy_jobs_come_again_after_all_others_and_a_pause(threads, monkeypatch):
    order: list[int] = []
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    def work(job):
        order.append(job)
        return Done(job, threading.current_thread(), busy=job < 2 and order.count(job) < 3)

    assert sorted(job for job, _ in run(work, range(4), threads, pause=5.0)) == [0, 1, 2, 3]
    assert sorted(order) == [0, 0, 0, 1, 1, 1, 2, 3]
    if threads < 2:
        assert order == [0, 1, 2, 3, 0, 1, 0, 1]
        assert pauses == [5.0]


@THREADS
def test_closing_the_generator_ends_the_work(threads):
    begun = []

    def work(job):
        begun.append(job)
        return Done(job, threading.current_thread())

    reports = run(work, range(100), threads)
    next(reports)
    reports.close()
    assert len(begun) <= max(threads, 1) + 1


@THREADS
def test_an_exception_of_a_job_is_raised_unchanged(threads):
    def work(job):
        raise ZeroDivisionError(f"job {job}")

    with pytest.raises(ZeroDivisionError, match="job 0"):
        list(run(work, range(1), threads))
