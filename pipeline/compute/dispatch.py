"""The dispatch loop of both stages: send each job to this process or to a cluster, yield reports.

A job that another process is working on is not lost: it goes to the end of the queue.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...cache.storage.leases import return_leases
from ..errors import PipelineError
from ..interruption import interrupted
from .backend import Backend
from .requirements import WorkerRequirements, WorkerTask, missing_on_worker

if TYPE_CHECKING:
    import torch

    from .dask_cluster import Cluster

_JOBS_PER_THREAD = 2  # of a worker: the job that it does, and the next one
_COUNT_SECONDS = 1.0  # between two counts of the cluster's threads
_POLL_SECONDS = 0.1


class Report(Protocol):
    """What became of a job."""

    @property
    def busy(self) -> bool:
        """Whether another process is working on the job, so that the job must come again."""


JobT = TypeVar("JobT")
ReportT = TypeVar("ReportT", bound=Report)
Reports = Generator[tuple[JobT, ReportT | None]]


def run_jobs(
    work: Callable[[JobT], ReportT],
    jobs: Sequence[JobT],
    backend: Backend,
    device: "torch.device",
    requirements: Callable[[], WorkerRequirements],
    *,
    threads: int = 0,
    pause: float = 0.0,
    split: Callable[[JobT], Sequence[JobT]] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Reports[JobT, ReportT]:
    """Do all jobs on a backend, and yield each job with its report as soon as it is done.

    Close the generator to end the work early.

    Args:
        work: does one job; for a cluster it must be possible to pickle it.
        jobs: in the order in which they should start.
        backend: where the jobs are done.
        device: on which the jobs compute.
        requirements: returns what workers must have that this process did not start itself.
        threads: how many jobs this process does at once, if it does them: on threads of their own,
            or with 0 one after the other on the calling thread.
        pause: seconds to wait when other processes work on all jobs that are left.
        split: divides a job whose workers died into smaller jobs. All jobs whose workers died are
            done again at the end, one at a time, and divided until ``split`` returns no jobs.
        advance: returns a value that changes while unfinished jobs advance. SLURM jobs that end are
            submitted again only while it changes, or jobs are finished.

    Yields:
        A job and its report, which is ``None`` if its workers died and it cannot be divided.

    Raises:
        PipelineError: the scheduler or all workers are gone, or a worker does not meet the
            requirements. An exception of ``work`` is raised unchanged.
    """
    if backend.in_process:
        yield from _in_this_process(work, jobs, threads, pause)
    elif jobs:
        with backend.cluster(len(jobs), device, advance) as cluster:
            required = None if cluster.started_here else requirements()
            yield from on_cluster(work, jobs, cluster, required, split, pause)


def _in_this_process(
    work: Callable[[JobT], ReportT], jobs: Sequence[JobT], threads: int, pause: float
) -> Reports[JobT, ReportT]:
    waiting, busy = deque(jobs), 0
    running: dict[futures.Future[ReportT], JobT] = {}
    executor = futures.ThreadPoolExecutor(threads) if threads else _CallingThread()
    try:
        while waiting or running:
            while waiting and len(running) < max(threads, 1):
                job = waiting.popleft()
                running[executor.submit(work, job)] = job
            future = next(iter(futures.wait(running, return_when=futures.FIRST_COMPLETED).done))
            job, report = running.pop(future), future.result()
            if not report.busy:
                busy = 0
                yield job, report
                continue
            waiting.append(job)
            busy += 1
            if busy >= len(waiting) + len(running):
                time.sleep(pause)
                busy = 0
    finally:
        # A shard may take longer than SLURM waits after SIGTERM.
        executor.shutdown(wait=not interrupted(), cancel_futures=True)
        if interrupted():
            return_leases(refuse=True)


class _CallingThread(futures.Executor):
    """Does work at once, on the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = futures.Future[Any]()
        future.set_result(fn(*args, **kwargs))
        return future


def on_cluster(
    work: Callable[[JobT], ReportT],
    jobs: Sequence[JobT],
    cluster: "Cluster",
    required: WorkerRequirements | None = None,
    split: Callable[[JobT], Sequence[JobT]] | None = None,
    pause: float = 0.0,
) -> Reports[JobT, ReportT]:
    """Do all jobs on a cluster that runs; see :func:`run_jobs`."""
    if required:
        check_workers(cluster, required)
    task = WorkerTask(work, required)
    suspects: list[JobT] = []
    for job, report in _sent(task, jobs, cluster, pause):
        if report is None and split:
            suspects.append(job)  # perhaps it only waited on a worker that another job killed
        else:
            yield job, report
    while suspects and split:
        for job, report in _sent(task, [suspects.pop()], cluster, pause):
            if report is None and (parts := split(job)):
                suspects += parts
            else:
                yield job, report


def check_workers(cluster: "Cluster", required: WorkerRequirements) -> None:
    """Check every worker before the work begins; workers that come later check themselves.

    Raises:
        PipelineError: a worker does not meet the requirements, or the scheduler is gone.
    """
    cluster.threads()
    try:
        answers = cluster.client.run(missing_on_worker, required, on_error="return")
    except (OSError, futures.CancelledError) as error:
        raise cluster.connection_lost() from error
    for address, answer in answers.items():
        if isinstance(answer, ImportError):
            raise _cannot_import(f"worker {address}", answer)
        if isinstance(answer, str):
            raise PipelineError(f"worker {address} {answer}")
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer  # an OSError is from a worker that has left meanwhile


def _sent(
    task: WorkerTask[JobT, ReportT], jobs: Sequence[JobT], cluster: "Cluster", pause: float = 0.0
) -> Reports[JobT, ReportT]:
    """Send the jobs to the workers; yield each with its report, or ``None`` if its workers died.

    Only few jobs are sent ahead, so that the scheduler of many workers does not hold the jobs of a
    whole corpus.
    """
    from distributed import as_completed  # noqa: PLC0415 -- a second to import

    waiting, busy = deque(jobs), 0
    sent: dict[object, tuple[JobT, int]] = {}
    working = as_completed(loop=cluster.client.loop, with_results=True, raise_errors=False)
    room, counted = 0, -_COUNT_SECONDS
    while waiting or sent:
        if time.monotonic() - counted > _COUNT_SECONDS:
            room, counted = _JOBS_PER_THREAD * cluster.threads(), time.monotonic()
        while waiting and len(sent) < room:
            job = waiting.popleft()
            future = cluster.client.submit(task, job, pure=False)
            sent[future] = job, cluster.ended_jobs
            working.add(future)
        if not working.has_ready():
            time.sleep(_POLL_SECONDS)
            continue
        future, result = next(working)
        job, ended_before = sent.pop(future)
        report = _report(result, cluster)
        if report is None and cluster.has_lost_jobs(ended_before):
            waiting.append(job)  # its workers came to their walltime
        elif report is not None and report.busy:
            waiting.append(job)
            busy += 1
            if busy >= len(waiting) + len(sent):
                time.sleep(pause)
                busy = 0
        else:
            busy = 0
            if report is not None:
                cluster.advanced()
            yield job, report


def _report(
    result: ReportT | BaseException | tuple[Any, ...], cluster: "Cluster"
) -> ReportT | None:
    """Return a report, or ``None`` if workers died; raise any other error."""
    from distributed.scheduler import (  # noqa: PLC0415 -- as above
        KilledWorker,
        NoValidWorkerError,
        NoWorkerError,
    )

    if not isinstance(result, tuple | BaseException):
        return result
    error = result[1] if isinstance(result, tuple) else result
    match error:
        case KilledWorker():
            return None
        case futures.CancelledError() if cluster.client.status != "running":
            raise cluster.connection_lost()
        case futures.CancelledError() | NoWorkerError() | NoValidWorkerError():
            raise PipelineError(
                f"{cluster.name} gave up a job ({type(error).__name__}): finished work is kept; "
                "run the same command again"
            )
        case ImportError() if not cluster.started_here:
            raise _cannot_import("a worker", error)
        case Exception():
            raise error
    raise TypeError(f"a worker returned {result!r}")


def _cannot_import(worker: str, error: ImportError) -> PipelineError:
    return PipelineError(
        f"{worker} cannot import mser ({error}): start the workers in an environment like this one"
    )
