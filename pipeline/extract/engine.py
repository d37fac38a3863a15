"""How an extraction uses its workers: how many, what they need, and what happens if one dies."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..compute import Backend, WorkerRequirements, WorkerSizing, run_jobs, visible_gpus
from ..compute.device import cores
from ..encoders import THREAD_SAFE
from ..plugins import folders_of
from .sharding import ShardJob
from .worker import ShardReport, crash_report
from .worker_imports import WORKER_IMPORTS

Work = Callable[[ShardJob], ShardReport]

_PAUSE = 0.5  # seconds to wait when other processes work on all shards that are left

# The threads of a larger worker would wait for each other in Python. If two forward passes cannot
# run at once in a process, each pass has a process.
_CORES_PER_WORKER = 4 if THREAD_SAFE else 1
# One process cannot decode, hash and write as fast as a GPU computes, so several share a GPU.
_CORES_PER_GPU_WORKER = 2
_GPU_BYTES_PER_WORKER = 16e9  # the weights and the largest batch of a large encoder


def threads_of(device: torch.device | str, cores: int) -> int:
    """Return how many jobs a process with ``cores`` cores does at once.

    On a CPU each job has a thread. One more thread than cores gains less while others wait for a
    disk than it takes from the caches of the cores. On a GPU three jobs run at once: one is
    decoded, one is computed, one is written.
    """
    return 3 if torch.device(device).type == "cuda" else cores


def default_workers(device: torch.device) -> int:
    """Return the number of workers of this machine; the jobs of a worker share its encoders.

    On a CPU there is one worker for every four cores. On GPUs there is one for every two cores, but
    on each GPU not more than its memory allows, and at least one.
    """
    if device.type == "cuda":
        gpus = max(1, len(visible_gpus()))
        cores_of_gpu = cores() // gpus
        memory = torch.cuda.get_device_properties(device).total_memory
        by_memory = int(memory / _GPU_BYTES_PER_WORKER)
        return gpus * max(1, min(cores_of_gpu // _CORES_PER_GPU_WORKER, by_memory))
    return -(-cores() // _CORES_PER_WORKER)


WORKER_SIZING = WorkerSizing(
    default_workers,
    threads_of,
    imports=WORKER_IMPORTS,
)


def run_shards(
    work: Work, jobs: Sequence[ShardJob], backend: Backend, device: torch.device
) -> Generator[ShardReport]:
    """Do ``jobs`` on a backend, and yield the report of each as soon as it is done.

    Jobs whose workers die are done again at the end, one at a time, and are divided until the one
    utterance that kills workers is found; all other utterances are extracted. Close the generator
    to end the work early.

    Raises:
        PipelineError: the scheduler or all its workers are gone, or a worker lacks what it needs.
    """
    before = torch.get_num_threads()
    # In this process the jobs run on threads of their own, never on the main thread. Ctrl-C reaches
    # the main thread, and FFmpeg, which reads through a callback into Python, would swallow it.
    reports = run_jobs(
        _OneThread(work),
        jobs,
        backend,
        device,
        partial(requirements_of, jobs),
        threads=threads_of(device, cores()),
        pause=_PAUSE,
        split=ShardJob.halves,
    )
    try:
        with closing(reports):
            for job, report in reports:
                yield crash_report(job) if report is None else report
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _OneThread:
    """Work that runs each forward pass on one thread.

    Several passes side by side then take less time, and the number of cores changes no bit.
    """

    work: Work

    def __call__(self, job: ShardJob) -> ShardReport:
        torch.set_num_threads(1)
        return self.work(job)


def requirements_of(jobs: Sequence[ShardJob]) -> WorkerRequirements:
    """Return what workers need to do ``jobs``: the packages of this process, folders, a GPU."""
    folders = {folder for job in jobs for folder in job.encoder.files.shared}
    folders |= folders_of({job.writer.store for job in jobs})
    folders |= {job.writer.folder.path for job in jobs if job.writer.folder.path}
    items = [item for job in jobs for item in (*job.items, *job.calibration)]
    clips = [item.path for item in items if item.path is not None]
    if clips:
        folders.add(Path(os.path.commonpath([clip.parent for clip in clips])))
    detectors = {job.encoder.frames.faces for job in jobs if job.encoder.frames.faces.detects}
    folders |= {Path(faces.place).parent for faces in detectors if faces.place}
    gpu = any(job.encoder.device == "cuda" for job in jobs)
    return WorkerRequirements.of_this_process(folders, gpu)
