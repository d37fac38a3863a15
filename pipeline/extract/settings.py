"""What an extraction is asked to do."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch

from ...cache import COMPRESSIONS, FORMATS
from ..compute import Backend
from ..encoders.encoder import PRECISIONS
from ..errors import UsageError
from ..modalities import MODALITIES, names
from ..validation import AnyPath, Count, Positive, one_of, settings
from .crew import WORKER_SIZING

_DTYPES = ("float16", "float32")
Modality = Annotated[str, one_of("modality", MODALITIES)]


@settings
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
    root: AnyPath | None
    cache: str | Path  # or the URL of an object store
    encoders: dict[Modality, str]  # a hub name or a folder
    manifest: AnyPath | None = None
    name: str | None = None
    classes: str | None = None
    layers: str = "all"
    dtype: Annotated[str, one_of("dtype", _DTYPES)] = "float16"
    precision: Annotated[str, one_of("precision", PRECISIONS)] = "float32"
    max_seconds: float = 30.0
    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    slurm: AnyPath | None = None
    wait_minutes: float | None = None
    limit: Count | None = None
    strict: bool = False
    dry_run: bool = False
    shard_mib: Positive | None = None
    store: Annotated[str, one_of("store", FORMATS)] = "zarr"
    compression: Annotated[str, one_of("compression", COMPRESSIONS)] = "none"

    def __post_init__(self) -> None:
        """Validate the settings that depend on each other; the types validate the rest.

        Raises:
            UsageError: a value is invalid.
        """
        if not self.encoders:
            raise UsageError(f"no modality is given: give {names(last='or')} in --modalities")
        of_manifest = self.dataset == "manifest"
        if of_manifest and not (self.manifest and self.name and self.root is None):
            raise UsageError("dataset 'manifest' takes --manifest and --name, and no --root")
        if not of_manifest and (self.root is None or self.manifest or self.name):
            raise UsageError(
                f"dataset '{self.dataset}' takes --root, and neither --manifest nor --name"
            )
        _ = self.place

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
