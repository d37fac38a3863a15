"""Find and delete unreferenced files of a cache."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow.compute as pc

from ..entry import Entry
from ..errors import CacheError, NoAccessError
from ..feature_cache import FeatureCache
from ..identity import KEY_LENGTH
from ..index import Index
from ..lookup import lookup_of
from ..shard import read_rows
from ..storage.folder import TEMPORARY, Folder
from ..storage.leases import read_leases
from ..writer import EntryWriter
from .verify import is_as_written

# A running writer has temporary files, and a reader may be about to open an index that was just
# replaced.
MINIMUM_AGE = 3600.0  # seconds
_INDEX = re.compile(rf"index-[0-9a-f]{{{KEY_LENGTH}}}\.(parquet|lookup)")
_MANIFEST = re.compile(rf"corpus-[0-9a-f]{{{KEY_LENGTH}}}\.parquet")


@dataclass(frozen=True)
class Garbage:
    """A file, a folder or a part of a shard that can be deleted."""

    what: str
    """Its path, or a shard and the number of its utterances."""
    reason: str
    """Why it can be deleted."""
    bytes: int
    """Its size in bytes."""


@dataclass
class GarbageReport:
    """The garbage of a cache, and whether it was deleted."""

    cache: str
    """The root of the cache."""
    garbage: list[Garbage] = field(default_factory=list)
    """Everything that can be deleted."""
    unread: list[str] = field(default_factory=list)
    """A sentence for each damaged entry, in which only files of killed writers are deleted, and for
    each file or folder that this user may not read or delete."""
    deleted: bool = False
    """Whether the garbage was deleted."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the report as a list of lines."""
        total = "nothing to delete"
        if self.garbage:
            size = sum(item.bytes for item in self.garbage) / 1e6
            state = "deleted" if self.deleted else "can be deleted with --yes"
            total = f"{len(self.garbage)} {state}, {size:.1f} MB"
        lines = [
            f"  {item.what}: {item.reason} ({item.bytes / 1e6:.1f} MB)" for item in self.garbage
        ]
        lines += [f"  skipped: {sentence}" for sentence in self.unread]
        return "\n".join([f"{self.cache}: {total}", *lines])


def collect_garbage(
    cache: FeatureCache, *, delete: bool = False, minimum_age: float = MINIMUM_AGE
) -> GarbageReport:
    """Find unreferenced files older than ``minimum_age`` seconds; with ``delete``, delete them.

    These are temporary files and uploads of killed writers, leases of dead processes, indexes and
    manifests that no entry refers to, pooled features whose entry is gone, shards that were never
    finished or whose utterances all have a newer copy, and utterances that the dataset's manifest
    no longer lists.

    What this user may not read or delete is skipped.

    Raises:
        CacheError: a shard that holds utterances of the corpus is damaged, or the storage fails.
    """
    report = GarbageReport(str(cache.root))
    with suppress(CacheError):  # in a cache that this user may not write, nothing is deleted
        minimum_age += cache.root.clock_ahead()
    for deletion in _all(cache, minimum_age, report.unread):
        try:
            if delete:
                deletion.run()
        except NoAccessError as error:
            report.unread.append(str(error))
        else:
            report.garbage.append(deletion.garbage)
    report.deleted = delete
    return report


@dataclass(frozen=True)
class _Deletion:
    garbage: Garbage
    run: Callable[[], object]


def _all(cache: FeatureCache, minimum_age: float, unread: list[str]) -> Iterator[_Deletion]:
    yield from _temporary(cache.root, minimum_age)
    for upload in cache.root.uploads():
        if upload.age >= minimum_age:
            what = f"{cache.root}/{upload.name}"
            garbage = Garbage(what, "an upload that was never finished", upload.bytes)
            yield _Deletion(garbage, partial(cache.root.abort, upload))
    for dataset in cache.datasets():
        yield from _allowed(_of_dataset(cache, dataset, minimum_age, unread), unread)


def _of_dataset(
    cache: FeatureCache, dataset: str, minimum_age: float, unread: list[str]
) -> Iterator[_Deletion]:
    folder = cache.root / dataset
    yield from _temporary(folder, minimum_age)
    entries = cache.entry_folders(dataset)
    for entry in entries:
        yield from _allowed(_of_entry(cache, entry, minimum_age, unread), unread)
    yield from _orphans(folder, entries, minimum_age)
    yield from _manifests(folder, entries, minimum_age)


def _allowed(found: Iterator[_Deletion], unread: list[str]) -> Iterator[_Deletion]:
    """Yield what is found until something may not be read."""
    try:
        yield from found
    except NoAccessError as error:
        unread.append(str(error))


def _of_entry(
    cache: FeatureCache, folder: Folder, minimum_age: float, unread: list[str]
) -> Iterator[_Deletion]:
    for part in (folder, *(folder / name for name in ("shards", "leases", "runs"))):
        yield from _temporary(part, minimum_age)
    leases, in_use = folder / "leases", False
    for name, lease in read_leases(leases).items():
        if lease is not None and (
            lease.alive or not (lease.ended or _old(leases, name, minimum_age))
        ):
            in_use = True
        else:
            yield from _file(leases, name, "its holder is dead", minimum_age)
    shards = folder / "shards"
    for name in sorted(set(shards.names()) - set(shards.committed())):
        if not name.startswith(TEMPORARY):
            yield from _file(shards, name, "a shard that was never finished", minimum_age)
    try:
        entry = Entry(folder)
        index = entry.index
    except CacheError as error:
        unread.append(str(error))
        return
    except FileNotFoundError:
        return  # never published: the next run uses its shards
    for name in folder.names():
        if _INDEX.fullmatch(name) and name not in (entry.index_name, lookup_of(entry.index_name)):
            yield from _file(folder, name, "an index that was replaced", minimum_age)
    if _old(folder, "entry.json", minimum_age):
        yield from _superseded(EntryWriter(folder, entry.spec, {}), index, minimum_age)
        if not in_use:  # a running writer may not have stored its manifest yet
            yield from _dropped(cache, entry, index, minimum_age)


def _superseded(writer: EntryWriter, index: Index, minimum_age: float) -> Iterator[_Deletion]:
    """Find shards that the index no longer refers to."""
    shards, used = writer.folder / "shards", set(index.shards())
    for name in writer.shards():
        if name in used:
            continue
        reason = "all its utterances are in newer shards"
        try:
            rows = read_rows(shards, name).to_pylist()
        except CacheError:
            if not _damaged(shards, name):
                continue
            rows, reason = [], "a damaged shard that the index does not refer to"
        if all(
            row["id"] in index.ids and index[row["id"]].written >= row["written"] for row in rows
        ):
            yield from _file(shards, name, reason, minimum_age)


def _damaged(shards: Folder, name: str) -> bool:
    """Return whether a shard is damaged; one that cannot be read at present may be undamaged."""
    try:
        return not is_as_written(shards, name)
    except CacheError:
        return False
    except FileNotFoundError:
        return True


def _dropped(
    cache: FeatureCache, entry: Entry, index: Index, minimum_age: float
) -> Iterator[_Deletion]:
    """Find utterances that are no longer in the corpus, shard by shard."""
    if not entry.manifest:
        return
    try:
        ids_of_corpus = cache.read_manifest(entry.spec.dataset, entry.manifest)["id"]
    except (CacheError, KeyError):
        return  # without a manifest, it is unknown which utterances were removed
    is_kept = pc.is_in(index.table["id"], ids_of_corpus.combine_chunks())
    removed = index.table.filter(pc.invert(is_kept))
    writer, shards = EntryWriter(entry.folder, entry.spec, {}), entry.folder / "shards"
    for name in sorted(removed["shard"].unique().to_pylist()):
        if not _old(shards, name, minimum_age):
            continue
        rows = index.rows_in([name]).to_pylist()
        ids = set(Index(removed).rows_in([name])["id"].to_pylist())
        kept = [row for row in rows if row["id"] not in ids]
        frames = sum(row["length"] for row in rows if row["id"] in ids)
        what = f"{shards}/{name}: {len(ids)} of {len(rows)} utterances"
        yield _Deletion(
            Garbage(what, "no longer in the corpus", frames * entry.spec.bytes_per_frame),
            partial(_rewrite, writer, name, kept),
        )


def _rewrite(writer: EntryWriter, name: str, kept: list[dict[str, Any]]) -> None:
    writer.prepare()  # a copy of a cache may lack its empty folders
    if kept:
        writer.with_form_of(name).rewrite_shard(name, kept)
    writer.publish(without={name})
    (writer.folder / "shards").remove(name)


def _orphans(dataset: Folder, entries: list[Folder], minimum_age: float) -> Iterator[_Deletion]:
    """Find pooled features whose entry is gone."""
    keys = {folder.name.rpartition("-")[2] for folder in entries}
    for folder in entries:
        with suppress(CacheError, FileNotFoundError):
            source = Entry(folder).spec.pooled_from
            if source is not None and source not in keys:
                reason = f"pooled from the entry {source}, which is gone"
                yield from _file(dataset, folder.name, reason, minimum_age)


def _manifests(folder: Folder, entries: list[Folder], minimum_age: float) -> Iterator[_Deletion]:
    try:
        used = {f"corpus-{Entry(entry).manifest}.parquet" for entry in entries}
    except (FileNotFoundError, CacheError):
        return  # an entry that is damaged or not published yet may need any of them
    for name in folder.names():
        if _MANIFEST.fullmatch(name) and name not in used:
            yield from _file(folder, name, "a manifest that was replaced", minimum_age)


def _temporary(folder: Folder, minimum_age: float) -> Iterator[_Deletion]:
    for name in folder.names():
        if name.startswith(TEMPORARY):
            yield from _file(folder, name, "left behind by a killed writer", minimum_age)


def _file(folder: Folder, name: str, reason: str, minimum_age: float) -> Iterator[_Deletion]:
    with suppress(FileNotFoundError):  # another process has deleted it
        if _old(folder, name, minimum_age):
            garbage = Garbage(f"{folder}/{name}", reason, folder.size(name))
            yield _Deletion(garbage, partial(folder.remove, name))


def _old(folder: Folder, name: str, minimum_age: float) -> bool:
    try:
        return folder.age(name) >= minimum_age
    except FileNotFoundError:
        return False
