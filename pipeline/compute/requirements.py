"""What a worker of a cluster must have, and the check that it makes before its first job."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import PipelineError

JobT = TypeVar("JobT")
ReportT = TypeVar("ReportT")

_PACKAGES = ("mser", "torch", "transformers")  # another version may give other numbers


@dataclass(frozen=True)
class WorkerRequirements:
    """What a worker must have."""

    versions: tuple[tuple[str, str], ...]
    """Name and version of each package."""
    folders: tuple[Path, ...]
    """Folders that the worker must see at the same path."""
    gpu: bool
    """Whether the worker needs a GPU."""

    @classmethod
    def of_this_process(cls, folders: Iterable[Path], gpu: bool) -> "WorkerRequirements":
        """Require the package versions of this process, and ``folders``."""
        versions = tuple((package, _version(package)) for package in _PACKAGES)
        return cls(versions, tuple(sorted(set(folders))), gpu)


@lru_cache(maxsize=1)
def missing_requirement(required: WorkerRequirements) -> str | None:
    """Return what this process lacks, as the end of a sentence, or ``None`` if it lacks nothing."""
    for package, wanted in required.versions:
        if (installed := _version(package)) != wanted:
            return f"has {package} {installed}, this command has {wanted}: install the same version"
    for folder in required.folders:
        if not folder.is_dir():
            return f"cannot see {folder}: share this folder, at the same path on all machines"
    if required.gpu:
        import torch  # noqa: PLC0415 -- seconds to import

        if not torch.cuda.is_available():
            return "has no GPU that PyTorch can use: give it a GPU, or use --device cpu"
    return None


async def missing_on_worker(required: WorkerRequirements) -> str | None:
    """Return what a worker lacks; the worker can answer its scheduler meanwhile."""
    return await asyncio.to_thread(missing_requirement, required)


@dataclass(frozen=True)
class WorkerTask(Generic[JobT, ReportT]):
    """The function that a worker gets with each job."""

    work: Callable[[JobT], ReportT]
    """Does one job."""
    required: WorkerRequirements | None
    """Checked before the first job of a process, because a worker may come late; ``None`` for
    workers that this process started itself."""

    def __call__(self, job: JobT) -> ReportT:
        """Do one job.

        Raises:
            PipelineError: this worker does not meet the requirements.
        """
        from distributed import get_worker  # noqa: PLC0415 -- a second to import

        from .worker_end import return_leases_at_the_end  # noqa: PLC0415

        worker = get_worker()
        if self.required and (missing := missing_requirement(self.required)):
            raise PipelineError(f"worker {worker.address} {missing}")
        return_leases_at_the_end(worker)
        return self.work(job)


def _version(package: str) -> str:
    try:
        # The part after the + names the GPU for which torch was built; a login node has no GPU.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "of unknown version"
