"""The features of an entry, written for other tools."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ...cache import Entry, FeatureCache
from ..errors import PipelineError, UsageError, unknown
from .selection import Selection
from .summary import ExportSummary
from .to_datasets import write_datasets
from .to_npy import write_npy
from .to_safetensors import write_safetensors

# By name: a function that writes a selection into a new folder.
EXPORT_FORMATS: dict[str, Callable[[Selection, Path], None]] = {
    "npy": write_npy,
    "safetensors": write_safetensors,
    "datasets": write_datasets,
}


@dataclass(frozen=True)
class ExportSettings:
    """Which features to export, where to, and how.

    ``encoder`` and ``modality`` are needed where the dataset has several entries. ``layers`` are
    the encoder's own layer numbers, in the order in which they are wanted; by default all that are
    stored. ``to`` is a folder that is new or empty.
    """

    cache: str
    dataset: str
    to: Path
    format: str
    encoder: str | None = None
    modality: str | None = None
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is unknown.
        """
        if self.format not in EXPORT_FORMATS:
            raise unknown("format", self.format, EXPORT_FORMATS)
        if self.layers is not None and not self.layers:
            raise UsageError("layers: give one or more of the encoder's layer numbers")


def export_features(settings: ExportSettings) -> ExportSummary:
    """Write the features of one entry into a folder, which appears whole or not at all.

    An export that is killed leaves a folder behind beside the one that was asked for, whose name
    begins with a dot and which may be deleted.

    Raises:
        UsageError: the folder is not empty, or a layer is not stored.
        CacheError: the cache holds no such entry, or several, or it is damaged.
        PipelineError: the disk is too small, or the format needs a library that is not installed.
    """
    started = time.monotonic()
    to = settings.to.expanduser().resolve()
    if to.exists() and not (to.is_dir() and next(to.iterdir(), None) is None):
        raise UsageError(f"{to} is there already: give a folder that is new or empty with --to")
    cache = FeatureCache(settings.cache)
    entry = cache.open(settings.dataset, settings.encoder, modality=settings.modality)
    if not entry.ids:
        raise PipelineError(f"the entry {entry.spec.folder} holds no utterance to export")
    selection = Selection(
        entry,
        _layers(entry, settings.layers),
        lambda: cache.read_manifest(settings.dataset, entry.manifest),
    )
    with _appearing(to, selection.bytes) as folder:
        EXPORT_FORMATS[settings.format](selection, folder)
    written = [path for path in to.rglob("*") if path.is_file()]
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
        len(written),
        selection.bytes,
        time.monotonic() - started,
    )


def _layers(entry: Entry, layers: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the layers to export, all stored ones if ``layers`` is ``None``."""
    for layer in layers or ():
        if layer not in entry.layers:
            raise UsageError(
                f"layer {layer} of '{entry.spec.encoder}' is not in the cache: choose among "
                f"{', '.join(map(str, entry.layers))}"
            )
    return entry.layers if layers is None else layers


@contextmanager
def _appearing(to: Path, needed: int) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``to`` at the end, or vanishes if that fails."""
    to.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(to.parent).free
    if needed > free:
        raise PipelineError(
            f"{to.parent} has {free / 1e9:.1f} GB free, and this export writes "
            f"{needed / 1e9:.1f} GB: choose another --to, or fewer --layers"
        )
    temporary = to.with_name(f".{to.name}.tmp-{uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
