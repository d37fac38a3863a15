"""Garbage: what lies in a cache and is of no use to anybody, and how to be rid of it."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow.compute as pc

from ..entry import Entry
from ..errors import CacheError
from ..feature_cache import FeatureCache
from ..identity import KEY_LENGTH
from ..index import FILE, Index
from ..shard import read_rows
from ..storage.folder import TEMPORARY, Folder
from ..storage.leases import held
from ..writer import EntryWriter
from .verify import as_written

# A writer at work has temporary files, and a reader may still be on its way to an index that was
# just replaced.
MINIMUM_AGE = 3600.0  # seconds
_MANIFEST = re.compile(rf"corpus-[0-9a-f]{{{KEY_LENGTH}}}\.parquet")


@dataclass(frozen=True)
class Garbage:
    """One thing to delete: a file or folder below the cache, why, and the bytes it takes."""

    what: str
    reason: str
    bytes: int


@dataclass
class Collection:
    """What was found, and whether it was deleted.

    ``unread`` says of which entries nothing can be told because they are damaged, each in a
    sentence. Nothing in them is deleted but what killed writers left behind.
    """

    cache: str
    garbage: list[Garbage] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    deleted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a person wants to read it."""
        said = "nothing to delete"
        if self.garbage:
            size = sum(one.bytes for one in self.garbage) / 1e6
            how = "deleted" if self.deleted else "may be deleted, with --yes"
            said = f"{len(self.garbage)} {how}, {size:.1f} MB"
        lines = [f"  {one.what}: {one.reason} ({one.bytes / 1e6:.1f} MB)" for one in self.garbage]
        lines += [f"  left alone: {one}" for one in self.unread]
        return "\n".join([f"{self.cache}: {said}", *lines])


def collect_garbage(
    cache: FeatureCache, *, delete: bool = False, minimum_age: float = MINIMUM_AGE
) -> Collection:
    """Find unreferenced files older than ``minimum_age`` seconds; with ``delete``, delete them.

    That is: temporary files and uploads of killed writers, leases of dead ones, indexes and
    manifests that no entry points to, shards of which every utterance lies in a newer one or that
    were never finished, and utterances that the dataset's manifest no longer names.

    Raises:
        CacheError: something cannot be read or deleted.
    """
    result = Collection(str(cache.root))
    for found in _all(cache, minimum_age, result.unread):
        result.garbage.append(found.garbage)
        if delete:
            found.delete()
    result.deleted = delete
    return result


@dataclass(frozen=True)
class _Found:
    garbage: Garbage
    delete: Callable[[], object]


def _all(cache: FeatureCache, minimum_age: float, unread: list[str]) -> Iterator[_Found]:
    yield from _temporary(cache.root, minimum_age)
    for upload in cache.root.uploads():
        if upload.age >= minimum_age:
            what = f"{cache.root}/{upload.name}"
            garbage = Garbage(what, "an upload that was never finished", upload.bytes)
            yield _Found(garbage, partial(cache.root.abort, upload))
    for dataset in cache.datasets():
        folder = cache.root / dataset
        yield from _temporary(folder, minimum_age)
        entries = cache.entry_folders(dataset)
        for one in entries:
            yield from _of_entry(cache, one, minimum_age, unread)
        yield from _manifests(folder, entries, minimum_age)


def _of_entry(
    cache: FeatureCache, folder: Folder, minimum_age: float, unread: list[str]
) -> Iterator[_Found]:
    for part in (folder, *(folder / name for name in ("shards", "leases", "runs"))):
        yield from _temporary(part, minimum_age)
    leases, at_work = folder / "leases", False
    for name, lease in held(leases).items():
        if lease is not None and lease.alive:
            at_work = True
        else:
            yield from _file(leases, name, "its holder is dead", minimum_age)
    shards = folder / "shards"
    for name in sorted(set(shards.names()) - set(shards.committed())):
        if not name.startswith(TEMPORARY):
            yield from _file(shards, name, "a shard that was never finished", minimum_age)
    try:
        entry = Entry(folder)
        index = entry.index
    except FileNotFoundError:
        return  # never published: its shards count at the next run
    except CacheError as error:
        unread.append(str(error))
        return
    for name in folder.names():
        if FILE.fullmatch(name) and name != entry.index_name:
            yield from _file(folder, name, "an index that was replaced", minimum_age)
    if _old(folder, "entry.json", minimum_age):
        yield from _superseded(EntryWriter(folder, entry.spec, {}), index, minimum_age)
        if not at_work:  # its manifest may be still to come
            yield from _dropped(cache, entry, index, minimum_age)


def _superseded(writer: EntryWriter, index: Index, minimum_age: float) -> Iterator[_Found]:
    """Find shards of which readers have no use any more."""
    shards, used = writer.folder / "shards", set(index.shards())
    for name in writer.shards():
        if name in used:
            continue
        reason = "all of it lies in newer shards"
        try:
            rows = read_rows(shards, name).to_pylist()
        except CacheError:
            if not _damaged(shards, name):
                continue
            rows, reason = [], "a shard that is damaged, and of which nothing is in use"
        if all(
            row["id"] in index.ids and index[row["id"]].written >= row["written"] for row in rows
        ):
            yield from _file(shards, name, reason, minimum_age)


def _damaged(shards: Folder, name: str) -> bool:
    """Tell what is damaged from what cannot be read just now."""
    try:
        return not as_written(shards, name)
    except FileNotFoundError:
        return True
    except CacheError:
        return False


def _dropped(
    cache: FeatureCache, entry: Entry, index: Index, minimum_age: float
) -> Iterator[_Found]:
    """Find utterances that are no longer in the corpus, shard by shard."""
    if not entry.manifest:
        return
    try:
        named = cache.read_manifest(entry.spec.dataset, entry.manifest)["id"]
    except (CacheError, KeyError):
        return  # without a manifest nothing is known to be gone
    gone = index.table.filter(pc.invert(pc.is_in(index.table["id"], named.combine_chunks())))
    writer, shards = EntryWriter(entry.folder, entry.spec, {}), entry.folder / "shards"
    for name in sorted(gone["shard"].unique().to_pylist()):
        if not _old(shards, name, minimum_age):
            continue
        rows = index.within([name]).to_pylist()
        ids = set(Index(gone).within([name])["id"].to_pylist())
        kept = [row for row in rows if row["id"] not in ids]
        frames = sum(row["length"] for row in rows if row["id"] in ids)
        what = f"{shards}/{name}: {len(ids)} of {len(rows)} utterances"
        yield _Found(
            Garbage(what, "no longer in the corpus", frames * entry.spec.bytes_per_frame),
            partial(_rewrite, writer, name, kept),
        )


def _rewrite(writer: EntryWriter, name: str, kept: list[dict[str, Any]]) -> None:
    writer.prepare()  # a copy of a cache may lack its empty folders
    if kept:
        writer.like(name).rewrite_shard(name, kept)
    writer.publish(without={name})
    (writer.folder / "shards").remove(name)


def _manifests(folder: Folder, entries: list[Folder], minimum_age: float) -> Iterator[_Found]:
    try:
        used = {f"corpus-{Entry(entry).manifest}.parquet" for entry in entries}
    except (FileNotFoundError, CacheError):
        return  # nobody can tell which one an entry needs that is damaged or not yet published
    for name in folder.names():
        if _MANIFEST.fullmatch(name) and name not in used:
            yield from _file(folder, name, "a manifest that was replaced", minimum_age)


def _temporary(folder: Folder, minimum_age: float) -> Iterator[_Found]:
    for name in folder.names():
        if name.startswith(TEMPORARY):
            yield from _file(folder, name, "left behind by a killed writer", minimum_age)


def _file(folder: Folder, name: str, reason: str, minimum_age: float) -> Iterator[_Found]:
    with suppress(FileNotFoundError):  # somebody else has deleted it
        if _old(folder, name, minimum_age):
            garbage = Garbage(f"{folder}/{name}", reason, folder.size(name))
            yield _Found(garbage, partial(folder.remove, name))


def _old(folder: Folder, name: str, minimum_age: float) -> bool:
    try:
        return folder.age(name) >= minimum_age
    except FileNotFoundError:
        return False
