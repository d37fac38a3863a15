"""Caches with garbage in them."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from mser.cache import Entry, EntryWriter, FeatureCache, UtteranceFeatures, collect_garbage
from mser.cache.maintenance.gc import GarbageReport
from mser.cache.storage.leases import Lease, read_leases
from mser.tests.support.cache_entries import array, fill, path_of

DAY = 86400.0
SHARDS = [{f"{n}{x}": array(3 * n + i, 2 + i) for i, x in enumerate("abc")} for n in range(3)]
ARRAYS = {id: states for shard in SHARDS for id, states in shard.items()}


def make(root: Path, store: str = "zarr", compression: str = "none") -> EntryWriter:
    """An entry with its manifest and two runs, and another beside it."""
    fill(root, SHARDS[:1], publish=False, encoder="beside", identity={}).publish(name(root, ARRAYS))
    writer = fill(root, SHARDS, publish=False, store=store, compression=compression)
    writer.publish(name(root, ARRAYS))
    return writer


def name(root: Path, ids: Iterable[str]) -> str:
    """Write a manifest with these ids, and return its digest."""
    return FeatureCache(root).write_manifest(
        "made-up", pa.table({"id": pa.array(ids, pa.string())})
    )


def age(root: Path) -> None:
    """Make everything a day old."""
    then = time.time() - DAY
    for path in (*root.rglob("*"), root):
        os.utime(path, (then, then), follow_symlinks=False)


def content(root: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def garbage_in(report: GarbageReport) -> list[tuple[str, str]]:
    return [(item.what, item.reason) for item in report.garbage]


def gc(root: Path, *, delete: bool = False) -> GarbageReport:
    return collect_garbage(FeatureCache(root), delete=delete)


KILLED = "left behind by a killed writer"
DEAD = "its holder is dead"


def temporary_file(folder: Path) -> tuple[Path, str]:
    path = folder / ".tmp-0123-entry.json"
    path.write_bytes(b"half")
    return path, KILLED


def temporary_folder(folder: Path) -> tuple[Path, str]:
    path = folder / ".tmp-0123-built"
    (path / "hidden_states").mkdir(parents=True)
    (path / "hidden_states" / "zarr.json").write_bytes(b"{}")
    return path, KILLED


def orphan_index(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / f"index-{'0' * 12}.parquet"
    path.write_bytes(b"old")
    return path, "an index that was replaced"


def orphan_manifest(writer: EntryWriter) -> tuple[Path, str]:
    root = path_of(writer).parents[1]
    path = root / "made-up" / f"corpus-{name(root, ['other'])}.parquet"
    return path, "a manifest that was replaced"


def lease_of(writer: EntryWriter, **changes: object) -> Path:
    now = time.time()
    with writer.lease("shard-0"):
        (lease,) = read_leases(writer.folder / "leases").values()
    assert lease is not None
    lease = Lease(**{**asdict(lease), "since": now, "beat": now, **changes})
    path = path_of(writer) / "leases" / "shard-0.0000.json"
    path.write_text(json.dumps(asdict(lease)))
    return path


def lease_of_a_dead_process(writer: EntryWriter) -> tuple[Path, str]:
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return lease_of(writer, process=process), DEAD


def lease_of_a_dead_host(writer: EntryWriter) -> tuple[Path, str]:
    return lease_of(writer, host="elsewhere", beat=time.time() - DAY), DEAD


def superseded_shard(writer: EntryWriter) -> tuple[Path, str]:
    old = path_of(writer) / "shards" / writer.shards()[1]
    for id in SHARDS[1]:
        writer.write_shard(9, [UtteranceFeatures(id, "newer", array(7))])
    writer.publish()
    return old, "all its utterances are in newer shards"


def damaged_unused_shard(writer: EntryWriter) -> tuple[Path, str]:
    path = (
        path_of(writer)
        / "shards"
        / writer.write_shard(5, [UtteranceFeatures("z", "hash", array(1))])
    )
    if path.is_file():
        path.write_bytes(path.read_bytes()[:-9])
    else:
        (path / "zarr.json").write_bytes(b"\0")
    return path, "a damaged shard that the index does not refer to"


def check_nothing_is_garbage(root: Path, writer: EntryWriter | None = None) -> GarbageReport:
    """Nothing is garbage, whatever its age, and no file changes."""
    age(root)
    before = content(root)
    result = gc(root, delete=True)
    assert garbage_in(result) == []
    assert content(root) == before
    if writer is not None:
        assert Entry(writer.folder).ids
    return result
