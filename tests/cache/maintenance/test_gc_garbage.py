"""Garbage is listed first, then deleted, and nothing else is."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mser.cache import Entry, EntryWriter, FeatureCache
from mser.tests.support.cache_entries import array, path_of, same_bits
from mser.tests.support.garbage_caches import (
    ARRAYS,
    DEAD,
    KILLED,
    SHARDS,
    age,
    content,
    damaged_unused_shard,
    garbage_in,
    gc,
    lease_of_a_dead_host,
    lease_of_a_dead_process,
    make,
    orphan_index,
    orphan_manifest,
    superseded_shard,
    temporary_file,
    temporary_folder,
)

# Kinds of garbage ---------------------------------------------------------------------------------


def temporary_entry(folder: Path) -> tuple[Path, str]:
    """What a killed deletion of an entry leaves."""
    entry = next(folder.rglob("entry.json")).parent
    path = folder / f".tmp-0123-{entry.name}"
    shutil.copytree(entry, path, copy_function=shutil.copy)  # with new times
    return path, KILLED


def test_a_half_deleted_entry_is_not_opened(tmp_path: Path) -> None:
    temporary_entry(path_of(make(tmp_path)).parent)
    entry = FeatureCache(tmp_path).open("made-up", "some/encoder")
    assert set(entry.ids) == ARRAYS.keys()
    assert len(FeatureCache(tmp_path).entries("made-up")) == 2


def of_root(plant: Callable[[Path], tuple[Path, str]]) -> Callable[[EntryWriter], tuple[Path, str]]:
    return lambda writer: plant(path_of(writer).parents[1])


def of_dataset(
    plant: Callable[[Path], tuple[Path, str]],
) -> Callable[[EntryWriter], tuple[Path, str]]:
    return lambda writer: plant(path_of(writer).parent)


def of_entry(
    plant: Callable[[Path], tuple[Path, str]], part: str = ""
) -> Callable[[EntryWriter], tuple[Path, str]]:
    return lambda writer: plant(path_of(writer) / part)


def unreadable_lease(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / "leases" / "shard-0.0000.json"
    path.write_bytes(b"")
    return path, DEAD


def emptied_unused_shard(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / "shards" / f"00005-{'0' * 32}"
    path.mkdir()
    return path, "a damaged shard that the index does not refer to"


PLANTS = {
    "file-root": of_root(temporary_file),
    "folder-root": of_root(temporary_folder),
    "file-dataset": of_dataset(temporary_file),
    "folder-dataset": of_dataset(temporary_folder),
    "entry-dataset": of_dataset(temporary_entry),
    "file-entry": of_entry(temporary_file),
    "file-shards": of_entry(temporary_file, "shards"),
    "folder-shards": of_entry(temporary_folder, "shards"),
    "file-leases": of_entry(temporary_file, "leases"),
    "file-runs": of_entry(temporary_file, "runs"),
    "index": orphan_index,
    "manifest": orphan_manifest,
    "lease-process": lease_of_a_dead_process,
    "lease-host": lease_of_a_dead_host,
    "lease-unreadable": unreadable_lease,
    "superseded": superseded_shard,
    "damaged": damaged_unused_shard,
    "emptied": emptied_unused_shard,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_garbage_is_listed_and_then_deleted_and_nothing_else(
    tmp_path: Path, plant: Callable[[EntryWriter], tuple[Path, str]]
) -> None:
    writer = make(tmp_path)
    age(tmp_path)
    path, reason = plant(writer)
    before = content(tmp_path)
    size = sum(len(c or b"") for p, c in before.items() if p == path or path in p.parents)

    assert not gc(tmp_path, delete=True).garbage, "all of it is younger than an hour"
    assert content(tmp_path) == before

    age(tmp_path)
    result = gc(tmp_path)
    assert garbage_in(result) == [(str(path), reason)]
    assert (result.deleted, result.unread, result.garbage[0].bytes) == (False, [], size)
    assert f"{path}: {reason}" in str(result)
    assert "1 can be deleted with --yes" in str(result)
    assert content(tmp_path) == before, "nothing is deleted without yes"

    result = gc(tmp_path, delete=True)
    assert (garbage_in(result), result.deleted) == ([(str(path), reason)], True)
    assert "1 deleted" in str(result)
    assert content(tmp_path) == {
        file: c for file, c in before.items() if file != path and path not in file.parents
    }
    assert gc(tmp_path).garbage == []
    assert set(Entry(writer.folder).ids) == ARRAYS.keys()


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_all_garbage_at_once(tmp_path: Path, store: str) -> None:
    writer = make(tmp_path, store)
    entry = Entry(writer.folder)
    expected = sorted(
        (str(path), reason) for path, reason in (plant(writer) for plant in PLANTS.values())
    )
    age(tmp_path)
    assert sorted(set(garbage_in(gc(tmp_path)))) == sorted(set(expected))
    assert sorted(set(garbage_in(gc(tmp_path, delete=True)))) == sorted(set(expected))
    assert gc(tmp_path).garbage == []
    entry_after = Entry(writer.folder)
    for id, states in ARRAYS.items():
        assert same_bits(entry_after[id], array(7) if id in SHARDS[1] else states)
        if id not in SHARDS[1]:
            assert same_bits(entry[id], states)


def test_several_processes_collect_garbage_at_once(tmp_path: Path) -> None:
    writer = make(tmp_path)
    for _ in range(5):
        for n, plant in enumerate(PLANTS.values()):
            path, _ = plant(writer)
            if path.name.startswith(".tmp-"):
                path.rename(path.with_name(f"{path.name}{n}"))
        age(tmp_path)
        with ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(gc, tmp_path, delete=True) for _ in range(4)]:
                assert result.result().deleted
        gc(tmp_path, delete=True)  # two deletions of one folder may leave a part of it
        assert gc(tmp_path).garbage == []
    assert set(Entry(writer.folder).ids) == ARRAYS.keys()
