"""Where the work is done, as the user chose: here, on this machine, at a scheduler, under SLURM."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from .dask_cluster import (
    Cluster,
    WorkerSizing,
    check_address,
    find_scheduler,
    local_cluster,
    running_scheduler,
    visible_gpus,
)
from .device import cores
from .slurm import SlurmFile, find_slurm, read_slurm_file, slurm_cluster

_WAIT = {"scheduler": 1.0, "slurm": 10.0}  # minutes


@dataclass(frozen=True)
class Backend:
    """At most one of: a number of processes on this machine, a scheduler's address, a SLURM file.

    ``workers`` 0 is this process, without Dask; ``None`` chooses for the machine.
    ``wait_minutes`` is how long a scheduler or SLURM may be without a worker. ``crew`` is how the
    stage wants its workers.
    """

    sizing: WorkerSizing
    workers: int | None = None
    scheduler: str | None = None
    slurm: Path | None = None
    wait_minutes: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: two places, a number below 0, no address, or a file that does not fit.
        """
        given = {"workers": self.workers, "scheduler": self.scheduler, "slurm": self.slurm}
        names = [f"--{name}" for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)} are different places to work: give one")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"{self.workers} workers: give 0 (this process) or more")
        if self.wait_minutes is not None and not (self.remote and self.wait_minutes >= 0):
            raise UsageError("--wait-minutes is 0 or more, and goes with --scheduler or --slurm")
        if self.scheduler is not None:
            check_address(self.scheduler)
        if self.slurm is not None:
            _ = self._slurm_file

    @property
    def here(self) -> bool:
        """Whether it is this process."""
        return self.workers == 0

    @property
    def remote(self) -> bool:
        """Whether it may be another machine, with devices that this one does not have."""
        return self.scheduler is not None or self.slurm is not None

    def find(self) -> None:
        """Look whether the place is there, before there is much to lose.

        Raises:
            PipelineError: no scheduler answers, or this machine has no SLURM.
        """
        if self.scheduler is not None:
            find_scheduler(self.scheduler)
        if self.slurm is not None:
            find_slurm(self._slurm_file)

    def cluster(self, jobs: int, device: torch.device) -> AbstractContextManager[Cluster]:
        """Return a context in which the place has workers, no more of its own than ``jobs``."""
        if self.scheduler is not None:
            return running_scheduler(self.scheduler, self._patience("scheduler"))
        if self.slurm is not None:
            return slurm_cluster(self._slurm_file, device, self._patience("slurm"), self.sizing)
        gpus = visible_gpus() if device.type == "cuda" else []
        workers = min(self.processes(device), jobs)
        threads = self.sizing.threads(device, max(1, cores() // workers))
        return local_cluster(workers, threads, gpus)

    def processes(self, device: torch.device) -> int:
        """Return the number of worker processes on this machine."""
        return self.sizing.workers(device) if self.workers is None else self.workers

    def facts(self, device: torch.device) -> dict[str, Any]:
        """Return what is to be known of the place, as JSON values."""
        if self.scheduler is not None:
            return {"scheduler": self.scheduler}
        if self.slurm is not None:
            return {"slurm": self._slurm_file.as_json()}
        return {"workers": self.processes(device)}

    @cached_property
    def _slurm_file(self) -> SlurmFile:
        assert self.slurm is not None  # noqa: S101 -- asked for only then
        return read_slurm_file(self.slurm)

    def _patience(self, kind: str) -> float:
        return 60 * (_WAIT[kind] if self.wait_minutes is None else self.wait_minutes)
