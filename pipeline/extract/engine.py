"""Where shards are worked on: in this process, or on a Dask cluster on this machine."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from .plan import ShardJob
from .work import ShardReport, crashed

Work = Callable[[ShardJob], ShardReport]


def default_workers(device: torch.device) -> int:
    """Return one worker a GPU, or one a core up to four, beyond which memory is short."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return min(_cores(), 4)


def run(work: Work, jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    """Do ``jobs``, and yield what became of each as it is done.

    With ``workers`` 0 they are done in this process; otherwise on a ``LocalCluster`` of so many
    processes. A job whose worker dies three times over is divided until the one utterance that
    kills workers is found; the others are extracted.
    """
    if workers == 0:
        yield from map(work, jobs)
    elif jobs:
        yield from _on_cluster(work, jobs, min(workers, len(jobs)))


def _on_cluster(work: Work, jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    from distributed import Client, LocalCluster, as_completed  # noqa: PLC0415 -- slow to import
    from distributed.scheduler import KilledWorker  # noqa: PLC0415

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            # Maps of shards count as memory to Dask, which would stop a worker for nothing.
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_share_cores, workers)
        submitted = {client.submit(work, job, pure=False): job for job in jobs}
        queue = as_completed(submitted)
        for future in queue:
            job = submitted.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            elif not isinstance(error, KilledWorker):
                raise error
            elif halves := job.halves():
                for half in halves:
                    again = client.submit(work, half, pure=False)
                    submitted[again] = half
                    queue.add(again)
            else:
                yield crashed(job)


def _share_cores(workers: int) -> None:
    torch.set_num_threads(max(1, _cores() // workers))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a SLURM job may use, not what the node has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
