"""What an extraction is asked to do."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...cache import COMPRESSIONS, FORMATS
from ..compute import Backend
from ..errors import UsageError, unknown
from .crew import WORKER_SIZING

_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class ExtractSettings:
    """What to extract, from where, into which cache.

    A corpus lies below ``root``; that of the dataset ``manifest`` is described by the file
    ``manifest``, and called ``name`` in the cache. ``classes`` takes only the utterances of a class
    set, such as IEMOCAP's ``4``.

    ``layers``, ``dtype``, ``precision`` and ``max_seconds`` change the numbers and are part of an
    entry's identity; ``device``, ``workers``, ``store``, ``compression`` and ``shard_mib`` do not.
    ``workers`` is the number of processes; ``None`` chooses, 0 works in this process without Dask.
    Instead of it, ``scheduler`` is the address of a running Dask scheduler, or ``slurm`` a file
    that says which SLURM jobs to submit; ``wait_minutes`` is how long these may be without a
    worker. ``limit`` takes the first utterances only; ``strict`` ends the run at the first
    utterance that fails. ``shard_mib`` is the largest shard, what a killed worker loses at most;
    ``None`` chooses for the device.
    """

    dataset: str
    root: Path | None
    cache: str | Path  # or the URL of an object store
    encoders: dict[str, str]  # by modality: a hub name or a folder
    manifest: Path | None = None
    name: str | None = None
    classes: str | None = None
    layers: str = "all"
    dtype: str = "float16"
    precision: str = "float32"
    max_seconds: float = 30.0
    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    slurm: Path | None = None
    wait_minutes: float | None = None
    limit: int | None = None
    strict: bool = False
    dry_run: bool = False
    shard_mib: float | None = None
    store: str = "zarr"
    compression: str = "none"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

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
        _ = self.place
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}: give 1 or more")
        if self.shard_mib is not None and not self.shard_mib > 0:
            raise UsageError(f"shards of {self.shard_mib} MiB: give more than 0")

    @cached_property
    def place(self) -> Backend:
        """Where the work is done."""
        return Backend(WORKER_SIZING, self.workers, self.scheduler, self.slurm, self.wait_minutes)

    def largest_shard(self, device: torch.device) -> float:
        """Return the largest shard in MiB: on a GPU as much as its batches want to be full."""
        if self.shard_mib is not None:
            return self.shard_mib
        return 256.0 if "cuda" in (self.device, device.type) else 64.0

    def facts(self, device: torch.device) -> dict[str, Any]:
        """Return what was chosen, by the user or by default, as JSON values."""
        return {
            "layers": self.layers,
            "dtype": self.dtype,
            "precision": self.precision,
            "max_seconds": self.max_seconds,
            "device": self.device if self.place.remote else str(device),
            **self.place.facts(device),
            "shard_mib": self.largest_shard(device),
            "store": self.store,
            "compression": self.compression,
        }
