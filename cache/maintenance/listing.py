"""What a cache holds: one line an entry, or all there is to know of one."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..entry import Entry
from ..errors import CacheError
from ..feature_cache import FeatureCache
from ..shard import store_of
from ..storage.folder import Folder
from ..writer import EntryWriter


@dataclass(frozen=True)
class Listed:
    """One entry: what it is, how large, how old, and who filled it.

    ``bytes`` is what its files take, ``published`` when it was last brought up to date (ISO 8601,
    UTC); ``error`` says what is wrong with an entry that cannot be opened.
    """

    dataset: str
    entry: str
    modality: str = ""
    encoder: str = ""
    key: str = ""
    utterances: int = 0
    layers: tuple[int, ...] = ()
    dim: int = 0
    dtype: str = ""
    bytes: int = 0
    published: str = ""
    who: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Listing:
    """All entries of a cache."""

    cache: str
    entries: tuple[Listed, ...]

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
        rows = [head, *(_row(one) for one in self.entries if not one.error)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"{one.dataset}/{one.entry}: {one.error}" for one in self.entries if one.error]
        return "\n".join([self.cache, *(f"  {line}" for line in lines)])


def listing(cache: FeatureCache) -> Listing:
    """List all entries of a cache, those that are damaged or not yet published too."""
    found = (
        _listed(dataset, place)
        for dataset in cache.datasets()
        for place in cache.entry_folders(dataset)
    )
    return Listing(str(cache.root), tuple(found))


def _listed(dataset: str, folder: Folder) -> Listed:
    name = folder.name
    try:
        entry = Entry(folder)
        count = len(entry)
    except FileNotFoundError:
        shards = len((folder / "shards").committed())
        return Listed(dataset, name, error=f"{shards} shards, not published yet: run it again")
    except CacheError as error:
        return Listed(dataset, name, error=str(error))
    spec = entry.spec
    who = sorted({str(run.get("user") or "?") for run in entry.provenance})
    return Listed(
        dataset, name, spec.modality, spec.encoder, spec.key, count, spec.layers, spec.dim,
        spec.dtype, folder.size(), entry.published, tuple(who),
    )  # fmt: skip


def _row(one: Listed) -> tuple[str, ...]:
    return (
        one.dataset,
        one.modality,
        one.encoder,
        one.key,
        str(one.utterances),
        f"{_ranges(one.layers)} x {one.dim} {one.dtype}",
        f"{one.bytes / 1e6:.1f} MB" if one.bytes < 1e9 else f"{one.bytes / 1e9:.1f} GB",
        _age(one.published),
        ",".join(one.who),
    )


@dataclass(frozen=True)
class Info:
    """All that is known of an entry, and all that is needed to make it again."""

    facts: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return self.facts

    def __str__(self) -> str:
        """Return the facts as a person wants to read them."""
        facts = {name: value for name, value in self.facts.items() if name != "runs"}
        lines = list(_lines(facts))
        for number, run in enumerate(self.facts["runs"], 1):
            lines += ["", f"run {number} of {len(self.facts['runs'])}", *_lines(run)]
        return "\n".join(lines)


def info(entry: Entry) -> Info:
    """Return all that is known of an entry."""
    spec, shards = entry.spec, entry.folder / "shards"
    writer = EntryWriter(entry.folder, spec, {})
    names = entry.index.shards()
    stores = Counter(
        f"{store_of(name)}, compression {writer.like(name).compression}" for name in names
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
