"""What a worker of a running cluster must have, and what it does before each job."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Generic, TypeVar

import torch
from distributed import get_worker

from ..errors import PipelineError

JobT = TypeVar("JobT")
ReportT = TypeVar("ReportT")

_PACKAGES = ("mser", "torch", "transformers")  # another version may give other numbers


@dataclass(frozen=True)
class WorkerRequirements:
    """What a worker must have: packages of these versions, folders it can see, perhaps a GPU."""

    versions: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...]
    gpu: bool

    @classmethod
    def here(cls, folders: Iterable[Path], gpu: bool) -> "WorkerRequirements":
        """Return the need of what is installed here, and of ``folders``."""
        versions = tuple((one, _version(one)) for one in _PACKAGES)
        return cls(versions, tuple(sorted(set(folders))), gpu)


@lru_cache(maxsize=1)
def lacking(requirements: WorkerRequirements) -> str | None:
    """Say in a few words what this process lacks, or ``None`` if it has all that is needed."""
    for package, wanted in requirements.versions:
        if (found := _version(package)) != wanted:
            return f"has {package} {found}, and this command {wanted}: install the same there"
    for folder in requirements.folders:
        if not folder.is_dir():
            return f"cannot see {folder}: it must be shared, and lie at the same path there"
    if requirements.gpu and not torch.cuda.is_available():
        return "has no GPU that PyTorch can use: give it one, or --device cpu"
    return None


async def lacking_there(requirements: WorkerRequirements) -> str | None:
    """Say what a worker lacks, without keeping it from answering its scheduler meanwhile."""
    return await asyncio.to_thread(lacking, requirements)


@dataclass(frozen=True)
class Task(Generic[JobT, ReportT]):
    """What is sent to a worker with each job.

    ``needs`` is looked at before the first job of a process, for a worker may come while others
    are at work; ``None`` is for workers that this process started.
    """

    work: Callable[[JobT], ReportT]
    requirements: WorkerRequirements | None

    def __call__(self, job: JobT) -> ReportT:
        """Do one job.

        Raises:
            PipelineError: this worker lacks something.
        """
        worker = get_worker()
        if self.requirements and (lacks := lacking(self.requirements)):
            raise PipelineError(f"worker {worker.address} {lacks}")
        return self.work(job)


def _version(package: str) -> str:
    try:
        # Behind the + it says for which GPU it was built, and a node to log in at has none.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "of unknown version"
