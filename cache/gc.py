"""Garbage: what lies in a cache and is of no use to anybody, and how to be rid of it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow.compute as pc

from .entry import Entry
from .errors import CacheError
from .feature_cache import FeatureCache
from .folder import TEMPORARY, Folder
from .index import FILE, Index
from .leases import held
from .shard import read_rows
from .writer import EntryWriter

# A writer at work has temporary files, and a reader may still be on its way to an index that was
# just replaced.
YOUNG = 3600.0  # seconds


@dataclass(frozen=True)
class Garbage:
    """One thing to delete: a file or folder below the cache, why, and the bytes it takes."""

    what: str
    reason: str
    bytes: int


@dataclass
class Collection:
    """What was found, and whether it was deleted."""

    cache: str
    garbage: list[Garbage] = field(default_factory=list)
    deleted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a person wants to read it."""
        if not self.garbage:
            return f"{self.cache}: nothing to delete"
        size = sum(one.bytes for one in self.garbage) / 1e6
        lines = [f"  {one.what}: {one.reason} ({one.bytes / 1e6:.1f} MB)" for one in self.garbage]
        said = "deleted" if self.deleted else "may be deleted, with --yes"
        return "\n".join([f"{self.cache}: {len(self.garbage)} {said}, {size:.1f} MB", *lines])


def collect(cache: FeatureCache, *, yes: bool = False, young: float = YOUNG) -> Collection:
    """Find what is of no use, and delete it if ``yes``; nothing younger than ``young`` seconds.

    That is: temporary files of killed writers, leases of dead ones, indexes and manifests that no
    entry points to, shards of which every utterance lies in a newer one or that were never
    finished, and utterances that the dataset's manifest no longer names.

    Raises:
        CacheError: something cannot be read or deleted.
    """
    result = Collection(str(cache.root))
    for found in _all(cache, young):
        result.garbage.append(found.garbage)
        if yes:
            found.delete()
    result.deleted = yes
    return result


@dataclass(frozen=True)
class _Found:
    garbage: Garbage
    delete: Callable[[], object]


def _all(cache: FeatureCache, young: float) -> Iterator[_Found]:
    yield from _temporary(cache.root, young)
    for dataset in cache.datasets():
        folder = cache.root / dataset
        yield from _temporary(folder, young)
        entries = cache.places(dataset)
        for one in entries:
            yield from _of_entry(cache, one, young)
        yield from _manifests(cache, dataset, entries, young)


def _of_entry(cache: FeatureCache, folder: Folder, young: float) -> Iterator[_Found]:
    for part in (folder, *(folder / name for name in ("shards", "leases", "runs"))):
        yield from _temporary(part, young)
    leases = folder / "leases"
    for name, lease in held(leases).items():
        if lease is None or not lease.alive:
            yield _file(leases, name, "its holder is dead")
    shards = folder / "shards"
    for name in set(shards.names()) - set(shards.committed()):
        if not name.startswith(TEMPORARY) and _old(shards, name, young):
            yield _file(shards, name, "a shard that was never finished")
    try:
        entry = Entry(folder)
        index = entry.index
    except FileNotFoundError:
        return  # never published: its shards count at the next run
    for name in folder.names():
        if FILE.fullmatch(name) and name != entry.index_name and _old(folder, name, young):
            yield _file(folder, name, "an index that was replaced")
    if _old(folder, "entry.json", young):
        yield from _superseded(EntryWriter(folder, entry.spec, {}), index)
        yield from _dropped(cache, entry, index)


def _superseded(writer: EntryWriter, index: Index) -> Iterator[_Found]:
    """Find shards of which readers have no use any more."""
    shards, used = writer.folder / "shards", set(index.shards())
    for name in writer.shards():
        if name in used:
            continue
        try:
            rows = read_rows(shards, name).to_pylist()
        except CacheError:
            yield _file(shards, name, "a shard that is damaged, and of which nothing is in use")
            continue
        if all(
            row["id"] in index.ids and index[row["id"]].written >= row["written"] for row in rows
        ):
            yield _file(shards, name, "all of it lies in newer shards")


def _dropped(cache: FeatureCache, entry: Entry, index: Index) -> Iterator[_Found]:
    """Find utterances that are no longer in the corpus, shard by shard."""
    if not entry.manifest:
        return
    try:
        named = cache.read_manifest(entry.spec.dataset, entry.manifest)["id"]
    except (CacheError, KeyError):
        return  # without a manifest nothing is known to be gone
    gone = index.table.filter(pc.invert(pc.is_in(index.table["id"], named.combine_chunks())))
    writer = EntryWriter(entry.folder, entry.spec, {})
    for name in sorted(gone["shard"].unique().to_pylist()):
        rows = index.within([name]).to_pylist()
        ids = set(Index(gone).within([name])["id"].to_pylist())
        kept = [row for row in rows if row["id"] not in ids]
        frames = sum(row["length"] for row in rows if row["id"] in ids)
        what = f"{entry.folder}/shards/{name}: {len(ids)} of {len(rows)} utterances"
        yield _Found(
            Garbage(what, "no longer in the corpus", frames * entry.spec.bytes_per_frame),
            partial(_rewrite, writer, name, kept),
        )


def _rewrite(writer: EntryWriter, name: str, kept: list[dict[str, Any]]) -> None:
    if kept:
        writer.like(name).rewrite_shard(name, kept)
    writer.publish(without={name})
    (writer.folder / "shards").remove(name)


def _manifests(
    cache: FeatureCache, dataset: str, entries: list[Folder], young: float
) -> Iterator[_Found]:
    used = set()
    for entry in entries:
        with suppress(FileNotFoundError):
            used.add(f"corpus-{Entry(entry).manifest}.parquet")
    folder = cache.root / dataset
    for name in folder.names():
        if name.startswith("corpus-") and name not in used and _old(folder, name, young):
            yield _file(folder, name, "a manifest that was replaced")


def _temporary(folder: Folder, young: float) -> Iterator[_Found]:
    for name in folder.names():
        if name.startswith(TEMPORARY) and _old(folder, name, young):
            yield _file(folder, name, "left behind by a killed writer")


def _file(folder: Folder, name: str, reason: str) -> _Found:
    garbage = Garbage(f"{folder}/{name}", reason, folder.size(name))
    return _Found(garbage, partial(folder.remove, name))


def _old(folder: Folder, name: str, young: float) -> bool:
    try:
        return folder.age(name) >= young
    except FileNotFoundError:  # somebody else has deleted it
        return False
