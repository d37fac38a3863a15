"""Doing the jobs: in this process or on a cluster, each once, whatever becomes of a worker."""

import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue

import torch
from distributed import as_completed
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from ..device import cores
from ..errors import PipelineError
from .clusters import Cluster, threads_of
from .place import Place
from .plan import ShardJob
from .work import ShardReport, crashed
from .worker import Needs, Task, Work, lacking_there

_AHEAD = 2  # jobs at a time for each thread of a worker: the one it does, and the next
_LOOK = 1.0  # seconds between looks at which workers there are
_PAUSE = 0.1


def run(
    work: Work, jobs: Sequence[ShardJob], place: Place, device: torch.device
) -> Generator[ShardReport]:
    """Do ``jobs`` at ``place``, and yield what became of each as it is done.

    A job at which another process is at work comes again behind the others. One whose worker dies
    again and again is set aside and then divided, with nothing beside it, until the one utterance
    that kills workers is found; all others are extracted. Close the iterator to end early.

    Raises:
        PipelineError: the scheduler, or all its workers, went away; a worker lacks what it needs.
    """
    if place.here:
        yield from _in_this_process(work, jobs, threads_of(device, cores()))
    elif jobs:
        with place.cluster(len(jobs), device) as cluster:
            yield from _on_cluster(work, jobs, cluster)


def _in_this_process(work: Work, jobs: Sequence[ShardJob], threads: int) -> Generator[ShardReport]:
    # Not on the main thread, which is the one that Ctrl-C reaches: FFmpeg reads through a callback
    # into Python, and swallows an interrupt that arrives there.
    # Each pass on one thread: several side by side take less time, and it changes no bit how many.
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting, working = deque(jobs), 0
    done: SimpleQueue[Future[ShardReport]] = SimpleQueue()
    try:
        while waiting or working:
            while waiting and working < threads:
                pool.submit(work, waiting.popleft()).add_done_callback(done.put)
                working += 1
            report = done.get().result()
            working -= 1
            if report.busy:
                waiting.append(report.job)
            else:
                yield report
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _on_cluster(work: Work, jobs: Sequence[ShardJob], cluster: Cluster) -> Generator[ShardReport]:
    needs = None if cluster.started_here else Needs.of(jobs)
    if needs:
        _check_workers(cluster, needs)
    task = Task(work, needs)
    suspects: list[ShardJob] = []
    for job, report in _done(task, jobs, cluster):
        if report is None:
            suspects.append(job)  # or it only waited on the worker that another job killed
        else:
            yield report
    while suspects:
        for job, report in _done(task, [suspects.pop()], cluster):
            if report is not None:
                yield report
            elif halves := job.halves():
                suspects += halves
            else:
                yield crashed(job)


def _check_workers(cluster: Cluster, needs: Needs) -> None:
    """Look at every worker before the work begins; those that come later look at themselves."""
    cluster.threads()
    try:
        found = cluster.client.run(lacking_there, needs, on_error="return")
    except (OSError, CancelledError) as error:
        raise cluster.lost() from error
    for address, lacks in found.items():
        if isinstance(lacks, ImportError):
            raise _cannot_import(address, lacks)
        if isinstance(lacks, str):
            raise PipelineError(f"worker {address} {lacks}")
        if isinstance(lacks, Exception) and not isinstance(lacks, OSError):  # it left meanwhile
            raise lacks


def _done(
    task: Task, jobs: Sequence[ShardJob], cluster: Cluster
) -> Generator[tuple[ShardJob, ShardReport | None]]:
    """Yield each job with its report, or with ``None`` if it was on workers that died.

    Few jobs are sent ahead, so that a scheduler of many workers holds what they need just now, not
    the whole corpus.
    """
    waiting = deque(jobs)
    sent: dict[object, ShardJob] = {}
    working = as_completed(loop=cluster.client.loop, with_results=True, raise_errors=False)
    room, looked = 0, -_LOOK
    while waiting or sent:
        if time.monotonic() - looked > _LOOK:
            room, looked = _AHEAD * cluster.threads(), time.monotonic()
        while waiting and len(sent) < room:
            job = waiting.popleft()
            future = cluster.client.submit(task, job, pure=False)
            sent[future] = job
            working.add(future)
        if not working.has_ready():
            time.sleep(_PAUSE)
            continue
        future, result = next(working)
        job = sent.pop(future)
        report = _report(result, cluster)
        if report is not None and report.busy:
            waiting.append(job)
        else:
            yield job, report


def _report(result: object, cluster: Cluster) -> ShardReport | None:
    """Return a report, or ``None`` if workers died; raise what else went wrong, as it is."""
    if isinstance(result, ShardReport):
        return result
    error = result[1] if isinstance(result, tuple) else result
    match error:
        case KilledWorker():
            return None
        case CancelledError() if cluster.client.status != "running":
            raise cluster.lost()
        case CancelledError() | NoWorkerError() | NoValidWorkerError():
            raise PipelineError(
                f"{cluster.name} gave up a job ({type(error).__name__}): what was finished is "
                "kept; run the same command again"
            )
        case ImportError() if not cluster.started_here:
            raise _cannot_import("there", error)
        case Exception():
            raise error
    raise TypeError(f"a worker returned {result!r}")


def _cannot_import(worker: str, error: ImportError) -> PipelineError:
    return PipelineError(
        f"worker {worker} cannot import mser ({error}): start the workers in an environment like "
        "this one"
    )
