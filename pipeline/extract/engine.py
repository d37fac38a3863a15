"""Doing the jobs: in this process or on a cluster, each once, whatever becomes of a worker."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch

from ..compute import Backend, Cluster, Task, WorkerRequirements, check_workers, run_tasks
from ..compute.device import cores
from .crew import threads_of
from .sharding import ShardJob
from .worker import ShardReport, crashed

Work = Callable[[ShardJob], ShardReport]


def run(
    work: Work, jobs: Sequence[ShardJob], place: Backend, device: torch.device
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
    requirements = None if cluster.started_here else requirements_of(jobs)
    if requirements:
        check_workers(cluster, requirements)
    task = Task(_OneThread(work), requirements)
    suspects: list[ShardJob] = []
    for job, report in run_tasks(task, jobs, cluster):
        if report is None:
            suspects.append(job)  # or it only waited on the worker that another job killed
        else:
            yield report
    while suspects:
        for job, report in run_tasks(task, [suspects.pop()], cluster):
            if report is not None:
                yield report
            elif halves := job.halves():
                suspects += halves
            else:
                yield crashed(job)


@dataclass(frozen=True)
class _OneThread:
    """Work whose forward passes take one thread, as in this process."""

    work: Work

    def __call__(self, job: ShardJob) -> ShardReport:
        torch.set_num_threads(1)
        return self.work(job)


def requirements_of(jobs: Sequence[ShardJob]) -> WorkerRequirements:
    """Return what the workers need to do ``jobs``, going by what is installed here."""
    folders = {job.encoder.files.folder for job in jobs}
    folders |= {job.writer.folder.path for job in jobs if job.writer.folder.path}
    clips = [item.source for job in jobs for item in job.items if isinstance(item.source, Path)]
    if clips:
        folders.add(Path(os.path.commonpath([clip.parent for clip in clips])))
    return WorkerRequirements.here(folders, any(job.encoder.device == "cuda" for job in jobs))
