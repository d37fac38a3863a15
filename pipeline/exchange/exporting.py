"""Export: the features of an entry, written in the formats of other tools."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ...cache import Entry
from ..errors import PipelineError, UsageError, unknown
from ..feature_cache import FeatureCache
from ..layers import stored_positions
from .selection import Selection
from .summary import ExportSummary
from .to_datasets import write_datasets
from .to_npy import write_npy
from .to_safetensors import write_safetensors

EXPORT_FORMATS: dict[str, Callable[[Selection, Path], None]] = {
    "npy": write_npy,
    "safetensors": write_safetensors,
    "datasets": write_datasets,
}
"""Format → a function that writes a selection into a new folder."""


@dataclass(frozen=True)
class ExportSettings:
    """The settings of an export."""

    cache: str
    """Folder or URL of the cache."""
    dataset: str
    """Name of the dataset in the cache."""
    to: Path
    """A folder that does not exist yet or is empty."""
    format: str
    """A name in ``EXPORT_FORMATS``."""
    encoder: str | None = None
    """Name of the encoder; needed if the dataset has several entries."""
    modality: str | None = None
    """Name of the modality; needed if the dataset has several entries."""
    layers: tuple[int, ...] | None = None
    """The encoder's own layer numbers, in the order of the output; by default all stored layers."""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            UsageError: a value is unknown.
        """
        if self.format not in EXPORT_FORMATS:
            raise unknown("format", self.format, EXPORT_FORMATS)
        if self.layers is not None and not self.layers:
            raise UsageError("layers is empty: give one or more of the encoder's layer numbers")


def export_features(settings: ExportSettings) -> ExportSummary:
    """Write the features of one entry into a folder. The folder appears complete or not at all.

    An export that is killed leaves a folder beside ``to`` whose name begins with a dot; it may be
    deleted.

    Raises:
        UsageError: the folder is not empty, or a layer is not stored.
        CacheError: the cache holds no such entry, or several, or it is damaged.
        PipelineError: the disk is too small, or the format needs a library that is not installed.
    """
    started = time.monotonic()
    to = settings.to.expanduser().resolve()
    if to.exists() and not (to.is_dir() and next(to.iterdir(), None) is None):
        raise UsageError(f"{to} exists already: give a new or empty folder with --to")
    cache = FeatureCache(settings.cache)
    entry = cache.open(settings.dataset, settings.encoder, modality=settings.modality)
    if not entry.ids:
        raise PipelineError(f"the entry {entry.spec.folder} has no utterance to export")
    selection = Selection(
        entry,
        _layers(entry, settings.layers),
        lambda: cache.read_manifest(settings.dataset, entry.manifest),
    )
    with _appearing(to, selection.bytes) as folder:
        EXPORT_FORMATS[settings.format](selection, folder)
    files = [path for path in to.rglob("*") if path.is_file()]
    return ExportSummary(
        settings.dataset,
        entry.spec.modality,
        entry.spec.encoder,
        selection.layers,
        entry.spec.dim,
        entry.spec.dtype,
        settings.format,
        to,
        len(entry.ids),
        len(files),
        selection.bytes,
        time.monotonic() - started,
    )


def _layers(entry: Entry, layers: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the layers to export, all stored ones if ``layers`` is ``None``."""
    if layers is None:
        return entry.layers
    stored_positions(layers, entry.layers, f"'{entry.spec.encoder}'")
    return layers


@contextmanager
def _appearing(to: Path, needed: int) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``to`` at the end; an exception deletes it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(to.parent).free
    if needed > free:
        raise PipelineError(
            f"{to.parent} has {free / 1e9:.1f} GB free, but this export needs "
            f"{needed / 1e9:.1f} GB: choose another --to, or fewer --layers"
        )
    temporary = to.with_name(f".{to.name}.tmp-{uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
