"""Sending jobs to the workers of a cluster, and hearing what became of each."""

import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from typing import Any, Protocol, TypeVar

from distributed import as_completed
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from ..errors import PipelineError
from .dask_cluster import Cluster
from .requirements import Task, WorkerRequirements, lacking_there

_AHEAD = 2  # jobs at a time for each thread of a worker: the one it does, and the next
_LOOK = 1.0  # seconds between looks at which workers there are
_PAUSE = 0.1


class Busy(Protocol):
    """A report says whether another process is at work on the job, which then comes again."""

    @property
    def busy(self) -> bool:
        """Whether it is so."""


JobT = TypeVar("JobT")
ReportT = TypeVar("ReportT", bound=Busy)


def check_workers(cluster: Cluster, requirements: WorkerRequirements) -> None:
    """Look at every worker before the work begins; those that come later look at themselves."""
    cluster.threads()
    try:
        found = cluster.client.run(lacking_there, requirements, on_error="return")
    except (OSError, CancelledError) as error:
        raise cluster.lost() from error
    for address, lacks in found.items():
        if isinstance(lacks, ImportError):
            raise _cannot_import(address, lacks)
        if isinstance(lacks, str):
            raise PipelineError(f"worker {address} {lacks}")
        if isinstance(lacks, Exception) and not isinstance(lacks, OSError):  # it left meanwhile
            raise lacks


def run_tasks(
    task: Task[JobT, ReportT], jobs: Sequence[JobT], cluster: Cluster
) -> Generator[tuple[JobT, ReportT | None]]:
    """Yield each job with its report, or with ``None`` if it was on workers that died.

    Few jobs are sent ahead, so that a scheduler of many workers holds what they need just now, not
    the whole corpus.
    """
    waiting = deque(jobs)
    sent: dict[object, JobT] = {}
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


def _report(result: ReportT | BaseException | tuple[Any, ...], cluster: Cluster) -> ReportT | None:
    """Return a report, or ``None`` if workers died; raise what else went wrong, as it is."""
    if not isinstance(result, tuple | BaseException):
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
