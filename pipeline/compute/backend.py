"""Where the work is done, as the user chose: this process, this machine, a scheduler, SLURM."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .address import check_address
from .device import cores, visible_gpus
from .sizing import WorkerSizing

if TYPE_CHECKING:
    import torch

    from .dask_cluster import Cluster
    from .slurm import SlurmFile
    from .tls import TlsFiles

MEMORY_ADVICE = "give fewer --workers, or more memory"
"""What to do if workers of this machine die because the memory is full."""

_WAIT_MINUTES = {"scheduler": 1.0, "slurm": 10.0}


@dataclass(frozen=True)
class Backend:
    """Where jobs are done; at most one of ``workers``, ``scheduler`` and ``slurm`` is given."""

    sizing: WorkerSizing
    """How many workers the stage wants, and how many jobs each does at once."""
    workers: int | None = None
    """Worker processes on this machine; 0 is this process, without Dask; default: by ``sizing``."""
    scheduler: str | None = None
    """Address of a Dask scheduler that runs already, such as ``tcp://node1:8786``."""
    slurm: Path | None = None
    """TOML file that describes the SLURM jobs to submit."""
    wait_minutes: float | None = None
    """How long to wait without any worker; default: 1 for a scheduler, 10 for SLURM."""
    tls: "TlsFiles | None" = None
    """Certificates for a ``scheduler`` at ``tls://…``; default: those of Dask's configuration."""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            UsageError: more than one place is given, or a value is invalid.
        """
        given = {"workers": self.workers, "scheduler": self.scheduler, "slurm": self.slurm}
        names = [f"--{name}" for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)} exclude each other: give only one of them")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"{self.workers} workers: give 0 (this process) or more")
        if self.wait_minutes is not None and not (self.remote and self.wait_minutes >= 0):
            raise UsageError(
                f"--wait-minutes {self.wait_minutes:g}: give 0 or more, together with --scheduler "
                "or --slurm"
            )
        if self.scheduler is not None:
            check_address(self.scheduler)
        if self.tls and not (self.scheduler or "").startswith("tls://"):
            raise UsageError("--tls-ca-file and --tls-cert need --scheduler tls://HOST:PORT")
        if self.slurm is not None:
            _ = self._slurm_file

    @property
    def in_process(self) -> bool:
        """Whether this process does the jobs itself."""
        return self.workers == 0

    @property
    def remote(self) -> bool:
        """Whether other machines may do the jobs, with devices that this machine does not have."""
        return self.scheduler is not None or self.slurm is not None

    @property
    def memory_advice(self) -> str:
        """What to do if workers die because the memory is full, as a part of a sentence."""
        if self.slurm is not None:
            from .slurm import memory_advice  # noqa: PLC0415 -- imports Dask

            return memory_advice(self.slurm)
        if self.scheduler is not None:
            return "start workers that have more memory"
        return MEMORY_ADVICE

    def check_available(self) -> None:
        """Check that the scheduler answers, or that this machine has SLURM.

        Raises:
            PipelineError: no scheduler answers, or this machine has no SLURM.
        """
        if self.scheduler is not None:
            from .dask_cluster import check_scheduler  # noqa: PLC0415 -- imports Dask

            check_scheduler(self.scheduler, self.tls)
        if self.slurm is not None:
            from .slurm import check_slurm  # noqa: PLC0415

            check_slurm(self._slurm_file)

    def cluster(
        self, jobs: int, device: "torch.device", advance: Callable[[], object]
    ) -> "AbstractContextManager[Cluster]":
        """Return a context with a connected cluster; it starts at most ``jobs`` workers here.

        ``advance`` returns a value that changes while unfinished jobs advance.

        Raises:
            PipelineError: no scheduler answers, this machine has no SLURM, or SLURM refuses a job.
        """
        if self.scheduler is not None:
            from .dask_cluster import running_scheduler  # noqa: PLC0415 -- imports Dask

            return running_scheduler(self.scheduler, self._wait_seconds("scheduler"), self.tls)
        if self.slurm is not None:
            from .slurm import slurm_cluster  # noqa: PLC0415

            wait_seconds = self._wait_seconds("slurm")
            return slurm_cluster(self._slurm_file, device, wait_seconds, self.sizing, advance)
        from .local_cluster import local_cluster  # noqa: PLC0415

        gpus = visible_gpus() if device.type == "cuda" else []
        workers = min(self.processes(device), jobs)
        threads = self.sizing.threads(device, max(1, cores() // workers))
        return local_cluster(workers, threads, gpus, self.sizing.imports)

    def processes(self, device: "torch.device") -> int:
        """Return the number of worker processes on this machine."""
        return self.sizing.workers(device) if self.workers is None else self.workers

    def cores_of_worker(self, device: "torch.device") -> int | None:
        """Return how many cores a worker process has; ``None`` for those of a scheduler."""
        if self.scheduler is not None:
            return None
        if self.slurm is not None:
            return max(1, self._slurm_file.cores // self._slurm_file.processes)
        return max(1, cores() // max(1, self.processes(device)))

    def as_json(self, device: "torch.device") -> dict[str, Any]:
        """Return where the jobs are done, as JSON values for the record of a run."""
        if self.scheduler is not None:
            return {"scheduler": self.scheduler}
        if self.slurm is not None:
            return {"slurm": self._slurm_file.as_json()}
        return {"workers": self.processes(device)}

    @cached_property
    def _slurm_file(self) -> "SlurmFile":
        from .slurm import read_slurm_file  # noqa: PLC0415 -- imports Dask

        assert self.slurm is not None  # noqa: S101 -- callers check it
        return read_slurm_file(self.slurm)

    def _wait_seconds(self, kind: str) -> float:
        return 60 * (_WAIT_MINUTES[kind] if self.wait_minutes is None else self.wait_minutes)
