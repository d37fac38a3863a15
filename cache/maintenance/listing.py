"""List the entries of a cache, or show everything that is known of one entry."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..entry import Entry
from ..errors import CacheError
from ..feature_cache import FeatureCache
from ..formats import store_of
from ..storage.folder import Folder
from ..writer import EntryWriter


@dataclass(frozen=True)
class EntrySummary:
    """One entry: its identity, size and age, and who filled it."""

    dataset: str
    """Name of the dataset."""
    entry: str
    """Name of the entry's folder."""
    modality: str = ""
    """Modality of the features."""
    encoder: str = ""
    """Name of the encoder."""
    key: str = ""
    """The key of the entry, 12 hexadecimal digits."""
    utterances: int = 0
    """Number of utterances."""
    layers: tuple[int, ...] = ()
    """The encoder's own numbers of the stored layers."""
    dim: int = 0
    """Width of the hidden states."""
    dtype: str = ""
    """``float16``, ``float32``, ``bfloat16`` or ``int8``."""
    bytes: int = 0
    """Size of all files of the entry in bytes."""
    published: str = ""
    """Time of the last update (ISO 8601, UTC)."""
    who: tuple[str, ...] = ()
    """The users whose runs filled the entry."""
    pooled_from: str | None = None
    """The key of the entry that these features were pooled from."""
    error: str = ""
    """Why the entry cannot be opened; empty if it can."""


@dataclass(frozen=True)
class CacheListing:
    """All entries of a cache."""

    cache: str
    """The root of the cache."""
    entries: tuple[EntrySummary, ...]
    """The entries, also those that cannot be opened."""

    def as_json(self) -> dict[str, Any]:
        """Return the listing as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the listing as a table."""
        if not self.entries:
            return f"{self.cache} holds no features yet: run 'mser extract' first"
        head = (
            "dataset",
            "modality",
            "encoder",
            "key",
            "utterances",
            "layers",
            "size",
            "age",
            "who",
        )
        rows = [head, *(_row(entry) for entry in self.entries if not entry.error)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [
            f"{entry.dataset}/{entry.entry}: {entry.error}" for entry in self.entries if entry.error
        ]
        return "\n".join([self.cache, *(f"  {line}" for line in lines)])


def listing(cache: FeatureCache) -> CacheListing:
    """List all entries of a cache, including damaged and unpublished ones."""
    entries = (
        _summary(dataset, folder)
        for dataset in cache.datasets()
        for folder in cache.entry_folders(dataset)
    )
    return CacheListing(str(cache.root), tuple(entries))


def _summary(dataset: str, folder: Folder) -> EntrySummary:
    name = folder.name
    try:
        entry = Entry(folder)
        count = len(entry)
    except CacheError as error:
        return EntrySummary(dataset, name, error=str(error))
    except FileNotFoundError:
        shards = len((folder / "shards").committed())
        error_text = f"{shards} shards, not published yet: run the extraction again"
        return EntrySummary(dataset, name, error=error_text)
    spec = entry.spec
    who = sorted({str(run.get("user") or "?") for run in entry.provenance})
    return EntrySummary(
        dataset, name, spec.modality, spec.encoder, spec.key, count, spec.layers, spec.dim,
        spec.dtype, folder.size(), entry.published, tuple(who), spec.pooled_from,
    )  # fmt: skip


def _row(entry: EntrySummary) -> tuple[str, ...]:
    return (
        entry.dataset,
        entry.modality,
        entry.encoder + (f" (pooled from {entry.pooled_from})" if entry.pooled_from else ""),
        entry.key,
        str(entry.utterances),
        f"{_ranges(entry.layers)} x {entry.dim} {entry.dtype}",
        f"{entry.bytes / 1e6:.1f} MB" if entry.bytes < 1e9 else f"{entry.bytes / 1e9:.1f} GB",
        _age(entry.published),
        ",".join(entry.who),
    )


@dataclass(frozen=True)
class Info:
    """Everything that is known of an entry, with what is needed to extract it again."""

    facts: dict[str, Any]
    """JSON values by name."""

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return self.facts

    def __str__(self) -> str:
        """Return the facts, a line each."""
        facts = {name: value for name, value in self.facts.items() if name != "runs"}
        lines = list(_lines(facts))
        for number, run in enumerate(self.facts["runs"], 1):
            lines += ["", f"run {number} of {len(self.facts['runs'])}", *_lines(run)]
        return "\n".join(lines)


def info(entry: Entry) -> Info:
    """Return everything that is known of an entry."""
    spec, shards = entry.spec, entry.folder / "shards"
    writer = EntryWriter(entry.folder, spec, {})
    names = entry.index.shards()
    stores = Counter(
        f"{store_of(name)}, compression {writer.with_form_of(name).compression}" for name in names
    )
    return Info(
        {
            "entry": str(entry.folder),
            "dataset": spec.dataset,
            "modality": spec.modality,
            "encoder": spec.encoder,
            "key": spec.key,
            "layers": list(spec.layers),
            "dim": spec.dim,
            "dtype": spec.dtype,
            "utterances": len(entry),
            "frames": entry.index.frames(),
            "bytes": shards.size(),
            "shards": dict(stores),
            "quarantine": len(entry.quarantine),
            "published": entry.published,
            "manifest": entry.manifest,
            "identity": dict(spec.identity),
            "runs": entry.provenance,
        }
    )


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            shown = value if isinstance(value, str) else json.dumps(value)
            lines.append(f"{indent}{name}: {shown}")
    return lines


def _ranges(layers: tuple[int, ...]) -> str:
    if len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(map(str, layers))


def _age(published: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(published)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"
