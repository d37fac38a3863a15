"""Where shards are worked on: in this process, or on a Dask cluster on this machine."""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dask
import torch
from distributed import Client, LocalCluster, WorkerPlugin, as_completed
from distributed.scheduler import KilledWorker

from .plan import ShardJob
from .work import ShardReport, crashed

Work = Callable[[ShardJob], ShardReport]


def default_workers(device: torch.device) -> int:
    """Return one worker for the GPU, or one a core up to four, beyond which memory is short."""
    return 1 if device.type == "cuda" else min(_cores(), 4)


def run(work: Work, jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    """Do ``jobs``, and yield what became of each as it is done.

    A job at which another process is at work comes again behind the others.

    With ``workers`` 0 they are done in this process; otherwise on a ``LocalCluster`` of so many
    processes. A job whose worker dies twice is set aside and then divided, with nothing beside it,
    until the one utterance that kills workers is found; all others are extracted.
    """
    if workers == 0:
        yield from _in_this_process(work, jobs)
    elif jobs:
        yield from _on_cluster(work, jobs, min(workers, len(jobs)))


def _in_this_process(work: Work, jobs: Sequence[ShardJob]) -> Iterator[ShardReport]:
    # Not on the main thread, which is the one that Ctrl-C reaches: FFmpeg reads through a callback
    # into Python, and swallows an interrupt that arrives there.
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(work, job) for job in jobs)
        while waiting:
            report = waiting.popleft().result()
            if report.busy:
                waiting.append(pool.submit(work, report.job))
            else:
                yield report
    finally:
        pool.shutdown(cancel_futures=True)


def _on_cluster(work: Work, jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    suspects: list[ShardJob] = []
    with (
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 1,
                # Otherwise a worker that is just being started again is taken for lost, for good.
                "distributed.deploy.lost-worker-timeout": "365 days",
            }
        ),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            # Maps of shards count as memory to Dask, which would stop a worker for nothing.
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_WorkerSettings(max(1, torch.get_num_threads() // workers)))
        submitted = {client.submit(work, job, pure=False): job for job in jobs}
        working = as_completed(list(submitted))
        for future in working:
            job = submitted.pop(future)
            if isinstance(future.exception(), KilledWorker):
                suspects.append(job)  # or it only waited on the worker that another job killed
            elif future.result().busy:
                again = client.submit(work, job, pure=False)
                submitted[again] = job
                working.add(again)
            else:
                yield future.result()
        while suspects:
            job = suspects.pop()
            try:
                report = client.submit(work, job, pure=False).result()
            except KilledWorker:
                suspects += job.halves()
                if not job.halves():
                    yield crashed(job)
            else:
                if report.busy:
                    suspects.insert(0, job)
                else:
                    yield report


class _WorkerSettings(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker its part of the threads, a restarted one too."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def setup(self, worker: object) -> None:
        torch.set_num_threads(self.threads)
        # Ctrl-C reaches every process of a terminal; the one that asked for the work answers it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a SLURM job may use, not what the node has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
