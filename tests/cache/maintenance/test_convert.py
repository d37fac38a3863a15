"""A conversion changes only how an entry is stored, also if it is interrupted."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mser.cache import (
    CacheError,
    Entry,
    EntryWriter,
    FeatureCache,
    UtteranceFeatures,
    collect_garbage,
    convert,
    info,
    verify,
)
from mser.cache.formats import store_of
from mser.tests.support.cache_entries import FORMS, Array, array, fill, path_of, same_bits

ODD = np.array([0x0000, 0x8000, 0x7E01, 0xFDFF], "uint16").view("float16")  # 0, -0, two NaN
ARRAYS = {
    "a": array(1, 300),
    "b": np.zeros((3, 2, 4), "float16"),
    "c": np.broadcast_to(ODD, (3, 5, 4)).copy(),
    "d": array(4, 1),
    "e": array(5, 7),
}
SHARDS = [{id: ARRAYS[id] for id in ids} for ids in ("ab", "c", "de")]


def content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def facts(entry: Entry) -> dict[str, tuple[object, ...]]:
    return {
        id: (entry[id].tobytes(), entry.checksum(id), entry.content_hash(id), entry.length(id))
        for id in entry.ids
    }


def holds_all(writer: EntryWriter, arrays: dict[str, Array] = ARRAYS) -> Entry:
    entry = Entry(writer.folder)
    assert list(entry.ids) == sorted(arrays)
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
    layer = entry.read(arrays, [1])
    assert all(same_bits(a, b[[1]]) for a, b in zip(layer, arrays.values(), strict=True))
    assert verify(writer.folder).damage == []
    return entry


@pytest.mark.parametrize(
    "forms",
    [
        [("zarr", "none"), ("hdf5", "none"), ("zarr", "none")],
        [("zarr", "none"), ("zarr", "zstd"), ("zarr", "blosc"), ("zarr", "none")],
        [("hdf5", "none"), ("hdf5", "zstd"), ("hdf5", "blosc"), ("hdf5", "none")],
        [("hdf5", "zstd"), ("zarr", "blosc"), ("hdf5", "none"), ("zarr", "zstd")],
    ],
    ids=lambda forms: "-".join(itertools.chain(*forms)),
)
def test_a_conversion_changes_only_the_form(tmp_path: Path, forms: list[tuple[str, str]]) -> None:
    (store, compression), *others = forms
    writer = fill(tmp_path, SHARDS, store=store, compression=compression)
    readers = [Entry(writer.folder)]
    expected, runs = facts(readers[0]), readers[0].provenance
    for store, compression in others:
        shown: list[list[str]] = []

        def each(names: list[str], shown: list[list[str]] = shown) -> Iterator[str]:
            shown.append(names)
            yield from names

        old = readers[-1].index.shards()
        result = convert(Entry(writer.folder), store, compression, each)
        assert (result.converted, result.shards) == (3, 3)
        assert shown == [old]
        assert f"3 of 3 shards written again as {store}, compression {compression}" in str(result)
        entry = holds_all(writer)
        assert info(entry).facts["shards"] == {f"{store}, compression {compression}": 3}
        assert (facts(entry), entry.provenance) == (expected, runs)
        assert entry.manifest == "0" * 12
        assert set(old) <= set(writer.shards()), "the old shards stay"
        readers.append(Entry(writer.folder))
    for reader in readers:
        assert facts(reader) == expected


def test_shards_in_the_wanted_form_are_not_written_again(tmp_path: Path) -> None:
    writer = fill(tmp_path, SHARDS, store="hdf5", compression="zstd")
    before = content(tmp_path)
    result = convert(Entry(writer.folder), "hdf5", "zstd")
    assert (result.converted, result.shards) == (0, 3)
    assert "gc" not in str(result)
    assert content(tmp_path) == before
    convert(Entry(writer.folder), "zarr", "none")
    before = content(tmp_path)
    assert convert(Entry(writer.folder), "zarr", "none").converted == 0
    assert content(tmp_path) == before
    assert result.as_json()["entry"] == str(writer.folder)


@pytest.mark.parametrize(("store", "compression"), [("parquet", "none"), ("zarr", "gzip")])
def test_an_unknown_form_is_an_error(tmp_path: Path, store: str, compression: str) -> None:
    writer = fill(tmp_path, SHARDS)
    with pytest.raises(CacheError, match="choose one of"):
        convert(Entry(writer.folder), store, compression)


def test_the_old_shards_and_no_others_are_garbage_afterwards(tmp_path: Path) -> None:
    cache, writer = FeatureCache(tmp_path), fill(tmp_path, SHARDS)
    old = [str(path_of(writer) / "shards" / name) for name in writer.shards()]
    assert collect_garbage(cache, minimum_age=0).garbage == []
    convert(Entry(writer.folder), "hdf5", "blosc")
    garbage = collect_garbage(cache, minimum_age=0).garbage
    assert [item.what for item in garbage] == old
    assert {item.reason for item in garbage} == {"all its utterances are in newer shards"}
    assert collect_garbage(cache, minimum_age=3600).garbage == [], "a job may still read them"
    collect_garbage(cache, delete=True, minimum_age=0)
    assert len(writer.shards()) == 3
    holds_all(writer)


# Interrupted conversions, and writers beside them -------------------------------------------------


def test_a_conversion_that_fails_is_completed_by_the_next(tmp_path: Path) -> None:
    writer = fill(tmp_path, SHARDS)

    def failing(names: list[str]) -> Iterator[str]:
        yield from names[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Entry(writer.folder), "hdf5", "zstd", failing)
    holds_all(writer)
    assert len(writer.shards()) == 5
    # The next publication uses the shards that are converted already.
    writer.publish()
    holds_all(writer)
    mixed = Entry(writer.folder).index.shards()
    assert sorted(map(store_of, mixed)) == ["hdf5", "hdf5", "zarr"]
    assert convert(Entry(writer.folder), "hdf5", "zstd").converted == 1
    entry = holds_all(writer)
    assert set(map(store_of, entry.index.shards())) == {"hdf5"}
    collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=0)
    assert len(writer.shards()) == 3
    holds_all(writer)


KILLED = """
import os, signal, sys
from pathlib import Path
from mser.cache import FeatureCache, convert

root, operation, name, after = sys.argv[1:]
original, left = getattr(Path, operation), int(after)

def deadly(self, target):
    global left
    if name in str(target):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    return original(self, target)

setattr(Path, operation, deadly)
convert(FeatureCache(root).open("made-up"), "hdf5", "zstd")
"""


@pytest.mark.parametrize(
    ("operation", "name", "after"),
    [("rename", "00001-", 0), ("replace", "index-", 0), ("replace", "entry.json", 0)],
)
def test_a_killed_conversion_leaves_all_values_and_is_completed(
    tmp_path: Path, operation: str, name: str, after: int
) -> None:
    writer = fill(tmp_path, SHARDS)
    reader = Entry(writer.folder)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), operation, name, str(after)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -9, killed.stderr
    holds_all(writer)
    convert(Entry(writer.folder), "hdf5", "zstd")
    entry = holds_all(writer)
    assert set(map(store_of, entry.index.shards())) == {"hdf5"}
    collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=0)
    assert len(writer.shards()) == 3
    assert sorted(path.name for path in path_of(writer).iterdir()) == [
        "entry.json", entry.index_name, "leases", "runs", "shards",
    ]  # fmt: skip
    assert facts(holds_all(writer)) == facts(reader)


def test_a_conversion_never_replaces_what_was_extracted_meanwhile(tmp_path: Path) -> None:
    writer = fill(tmp_path, SHARDS)

    def each(names: list[str]) -> Iterator[str]:
        yield names[0]
        writer.write_shard(
            9,
            [UtteranceFeatures("d", "changed", array(9)), UtteranceFeatures("new", "h", array(8))],
        )
        yield from names[1:]

    convert(Entry(writer.folder), "hdf5", "none", each)
    entry = holds_all(writer, ARRAYS | {"d": array(9), "new": array(8)})
    assert entry.content_hash("d") == "changed"
    convert(Entry(writer.folder), "zarr", "none")
    holds_all(writer, ARRAYS | {"d": array(9), "new": array(8)})


def test_two_conversions_at_once(tmp_path: Path) -> None:
    writer = fill(tmp_path, SHARDS)
    entries = [Entry(writer.folder) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda entry: convert(entry, "hdf5", "zstd"), entries))
    entry = holds_all(writer)
    assert set(map(store_of, entry.index.shards())) == {"hdf5"}


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_damaged_shard_is_never_written_again_as_undamaged(
    tmp_path: Path, store: str, compression: str
) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 16, (3, 300, 4), "uint16")
    noise = bits.view("float16")  # no compression makes it smaller
    arrays = {**ARRAYS, "c": noise}
    shards = [SHARDS[0], {"c": noise}, SHARDS[2]]
    writer = fill(tmp_path, shards, store=store, compression=compression)
    (shard,) = path_of(writer).glob("shards/00001-*")
    file = shard if shard.is_file() else shard / "hidden_states/c/0/0/0"
    data = bytearray(file.read_bytes())
    position = data.find(noise[2].tobytes()[500:600])
    assert position > 0
    data[position + 50] ^= 1
    file.write_bytes(data)
    to = ("hdf5" if store == "zarr" else "zarr", compression)
    with pytest.raises(CacheError) as raised:
        convert(Entry(writer.folder), *to)
    assert shard.name in str(raised.value)
    assert "\n" not in str(raised.value)
    result = verify(writer.folder, repair=True)
    assert [damage.lost for damage in result.damage] == [("c",)]
    whole = {id: states for id, states in arrays.items() if id != "c"}
    holds_all(writer, whole)
    convert(Entry(writer.folder), *to)
    holds_all(writer, whole)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    writer = fill(tmp_path, SHARDS)
    shard = path_of(writer) / "shards" / writer.shards()[1]
    shutil.rmtree(shard)
    with pytest.raises(CacheError, match=shard.name):
        convert(Entry(writer.folder), "hdf5", "none")
    entry = Entry(writer.folder)
    assert same_bits(entry["a"], ARRAYS["a"])
    assert json.loads(json.dumps(convert(entry, "zarr", "none").as_json()))["converted"] == 0
