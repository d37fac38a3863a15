"""What a worker of a running cluster must have, and what it does before each job."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from distributed import get_worker

from ..errors import PipelineError
from .plan import ShardJob
from .work import ShardReport

Work = Callable[[ShardJob], ShardReport]

_PACKAGES = ("mser", "torch", "transformers")  # another version may give other numbers


@dataclass(frozen=True)
class Needs:
    """What a worker must have: packages of these versions, folders it can see, perhaps a GPU."""

    versions: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...]
    gpu: bool

    @classmethod
    def of(cls, jobs: Sequence[ShardJob]) -> "Needs":
        """Return what the workers need to do ``jobs``, going by what is installed here."""
        folders = {job.encoder.files.folder for job in jobs}
        folders |= {job.writer.folder.path for job in jobs if job.writer.folder.path}
        clips = [item.source for job in jobs for item in job.items if isinstance(item.source, Path)]
        if clips:
            folders.add(Path(os.path.commonpath([clip.parent for clip in clips])))
        gpu = any(job.encoder.device == "cuda" for job in jobs)
        return cls(tuple((one, _version(one)) for one in _PACKAGES), tuple(sorted(folders)), gpu)


@lru_cache(maxsize=1)
def lacking(needs: Needs) -> str | None:
    """Say in a few words what this process lacks, or ``None`` if it has all that is needed."""
    for package, wanted in needs.versions:
        if (found := _version(package)) != wanted:
            return f"has {package} {found}, and this command {wanted}: install the same there"
    for folder in needs.folders:
        if not folder.is_dir():
            return f"cannot see {folder}: it must be shared, and lie at the same path there"
    if needs.gpu and not torch.cuda.is_available():
        return "has no GPU that PyTorch can use: give it one, or --device cpu"
    return None


async def lacking_there(needs: Needs) -> str | None:
    """Say what a worker lacks, without keeping it from answering its scheduler meanwhile."""
    return await asyncio.to_thread(lacking, needs)


@dataclass(frozen=True)
class Task:
    """What is sent to a worker with each job.

    ``needs`` is looked at before the first job of a process, for a worker may come while others
    are at work; ``None`` is for workers that this process started.
    """

    work: Work
    needs: Needs | None

    def __call__(self, job: ShardJob) -> ShardReport:
        """Do one job.

        Raises:
            PipelineError: this worker lacks something.
        """
        worker = get_worker()
        if self.needs and (lacks := lacking(self.needs)):
            raise PipelineError(f"worker {worker.address} {lacks}")
        torch.set_num_threads(1)  # as in the engine's own threads
        return self.work(job)


def _version(package: str) -> str:
    try:
        # Behind the + it says for which GPU it was built, and a node to log in at has none.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "of unknown version"
