"""Settings of an extraction."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...cache import COMPRESSIONS, FORMATS
from ..compute import Backend
from ..errors import UsageError, unknown
from .engine import WORKER_SIZING

_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class ExtractSettings:
    """Which corpus to extract, with which encoders, into which cache, and where.

    ``layers``, ``dtype``, ``precision`` and ``max_seconds`` change the numbers, so they are part of
    an entry's identity. ``device``, ``workers``, ``store``, ``compression`` and ``shard_mib`` do
    not.
    """

    dataset: str
    """A known corpus, such as ``meld``; ``manifest`` for a corpus described by a table."""
    root: Path | None
    """Folder of the corpus; ``None`` for ``manifest``."""
    cache: str | Path
    """Folder of the cache, or the URL of an object store."""
    encoders: dict[str, str]
    """Modality → its encoder: a hub name, a folder, or a bundle of torchaudio."""
    manifest: Path | None = None
    """The table that describes the dataset ``manifest``."""
    name: str | None = None
    """Name of the dataset ``manifest`` in the cache."""
    classes: str | None = None
    """Extract only utterances of this class set, such as IEMOCAP's ``4``; default: all."""
    layers: str = "all"
    """Encoder layers to keep: ``all``, ``last``, or numbers such as ``0,6,12``."""
    dtype: str = "float16"
    """Of the stored features: ``float16`` (default) or ``float32``."""
    precision: str = "float32"
    """Of the forward pass: ``float32`` (default), ``bfloat16`` or ``float16``."""
    max_seconds: float = 30.0
    """Longer audio is encoded in overlapping windows of this length, in seconds; default 30."""
    device: str = "auto"
    """``auto`` (default: a GPU if this machine has one), ``cpu`` or ``cuda``."""
    workers: int | None = None
    """Worker processes on this machine; 0: this process, without Dask; default: by the machine."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, instead of ``workers``."""
    slurm: Path | None = None
    """TOML file that describes SLURM jobs, instead of ``workers``."""
    wait_minutes: float | None = None
    """How long to wait without any worker; default: 1 for ``scheduler``, 10 for ``slurm``."""
    limit: int | None = None
    """Extract only the first ``limit`` utterances; default: all."""
    strict: bool = False
    """End the run at the first utterance that fails; default: put it into quarantine."""
    dry_run: bool = False
    """Only report what an extraction would do; default: extract."""
    shard_mib: float | None = None
    """Size of the largest shard in MiB, which a killed worker loses at most; default: 64, on a GPU
    256."""
    store: str = "zarr"
    """Format of the shards: ``zarr`` (default) or ``hdf5``."""
    compression: str = "none"
    """Of the shards: ``none`` (default), ``zstd`` or ``blosc``."""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            UsageError: a value is out of range, or unknown.
        """
        if not self.encoders:
            raise UsageError("no modality is asked for: say speech, text, or both")
        for modality in self.encoders:
            if modality not in ("speech", "text"):
                raise unknown("modality", modality, ("speech", "text"))
        of_manifest = self.dataset == "manifest"
        if of_manifest and not (self.manifest and self.name and self.root is None):
            raise UsageError("dataset 'manifest' is described by --manifest and --name, no --root")
        if not of_manifest and (self.root is None or self.manifest or self.name):
            raise UsageError(f"dataset '{self.dataset}' is described by --root alone")
        if self.dtype not in _DTYPES:
            raise unknown("dtype", self.dtype, _DTYPES)
        if self.store not in FORMATS:
            raise unknown("store", self.store, FORMATS)
        if self.compression not in COMPRESSIONS:
            raise unknown("compression", self.compression, COMPRESSIONS)
        _ = self.backend
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}: give 1 or more")
        if self.shard_mib is not None and not self.shard_mib > 0:
            raise UsageError(f"shards of {self.shard_mib} MiB: give more than 0")

    @cached_property
    def backend(self) -> Backend:
        """Where the work is done."""
        return Backend(WORKER_SIZING, self.workers, self.scheduler, self.slurm, self.wait_minutes)

    def largest_shard(self, device: torch.device) -> float:
        """Return the size of the largest shard in MiB; on a GPU larger, to fill its batches."""
        if self.shard_mib is not None:
            return self.shard_mib
        return 256.0 if "cuda" in (self.device, device.type) else 64.0

    def as_json(self, device: torch.device) -> dict[str, Any]:
        """Return the settings with their defaults resolved, as JSON values."""
        return {
            "layers": self.layers,
            "dtype": self.dtype,
            "precision": self.precision,
            "max_seconds": self.max_seconds,
            "device": self.device if self.backend.remote else str(device),
            **self.backend.as_json(device),
            "shard_mib": self.largest_shard(device),
            "store": self.store,
            "compression": self.compression,
        }
