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

Job = TypeVar("Job")
Report = TypeVar("Report")

_PACKAGES = ("mser", "torch", "transformers")  # another version may give other numbers


@dataclass(frozen=True)
class Needs:
    """What a worker must have: packages of these versions, folders it can see, perhaps a GPU."""

    versions: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...]
    gpu: bool

    @classmethod
    def here(cls, folders: Iterable[Path], gpu: bool) -> "Needs":
        """Return the need of what is installed here, and of ``folders``."""
        versions = tuple((one, _version(one)) for one in _PACKAGES)
        return cls(versions, tuple(sorted(set(folders))), gpu)


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
class Task(Generic[Job, Report]):
    """What is sent to a worker with each job.

    ``needs`` is looked at before the first job of a process, for a worker may come while others
    are at work; ``None`` is for workers that this process started.
    """

    work: Callable[[Job], Report]
    needs: Needs | None

    def __call__(self, job: Job) -> Report:
        """Do one job.

        Raises:
            PipelineError: this worker lacks something.
        """
        worker = get_worker()
        if self.needs and (lacks := lacking(self.needs)):
            raise PipelineError(f"worker {worker.address} {lacks}")
        return self.work(job)


def _version(package: str) -> str:
    try:
        # Behind the + it says for which GPU it was built, and a node to log in at has none.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "of unknown version"
