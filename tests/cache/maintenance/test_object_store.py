"""Caches on an object store are verified, converted and cleaned up."""

from pathlib import Path

import pytest

from mser.cache import CacheError, Entry, EntryWriter, collect_garbage, convert, listing, verify
from mser.cache.formats import FORMATS
from mser.tests.support.cache_entries import FOUR, array, fill, path_of, same_bits, spec
from mser.tests.support.object_caches import features, fill_store, large, open_all, sentence, write
from mser.tests.support.object_store import ObjectStore

# Maintenance --------------------------------------------------------------------------------------


def data_object(writer: EntryWriter, shard: str) -> str:
    """The object that holds the numbers of a shard."""
    inside = "" if shard.endswith(".h5") else "/hidden_states/c/0/0/0"
    return f"{writer.folder}/shards/{shard}{inside}"


def flip(store: ObjectStore, name: str, position: int) -> None:
    content = bytearray(store.fs.cat_file(name))
    content[position] ^= 1
    store.fs.pipe_file(name, bytes(content))


@pytest.mark.parametrize("form", FOUR[1:3])
def test_a_flipped_bit_is_found_and_the_rest_kept(
    store: ObjectStore, form: tuple[str, str]
) -> None:
    arrays = {"a": large(1), "b": large(2), "c": large(3)}
    writer = write(store, arrays, form)
    assert verify(writer.folder).damage == []
    (shard,) = writer.shards()
    name = data_object(writer, shard)
    # Near the end of the last layer, which holds frames of 'c'.
    flip(store, name, store.fs.info(name)["size"] - (5000 if form[0] == "zarr" else 9000))
    result = verify(writer.folder, repair=True)
    (damage,) = result.damage
    assert (damage.what, damage.lost, damage.whole) == (shard, ("c",), ("a", "b"))
    assert result.repaired
    assert store.fs.glob(f"{writer.folder}/shards/{shard}*") == []
    assert {
        id: same_bits(states, arrays[id]) for id, states in open_all(store.cache()).items()
    } == {"a": True, "b": True}
    assert verify(writer.folder).damage == []
    assert writer.committed().keys() == {"a", "b"}
    writer.write_shard(0, features({"c": large(3)}))
    writer.publish()
    assert sorted(open_all(store.cache())) == ["a", "b", "c"]


@pytest.mark.parametrize(("form", "opened"), [(form, n in (0, 3)) for n, form in enumerate(FOUR)])
def test_deleted_data_of_a_shard_is_found(
    store: ObjectStore, form: tuple[str, str], opened: bool
) -> None:
    writer = write(store, {"a": large(1)}, form)
    writer.write_shard(1, features({"b": large(2)}))
    writer.publish()
    entry = store.cache().open("made-up")
    if opened:
        _ = entry["a"]
    shard = writer.shards()[0]
    store.fs.rm_file(data_object(writer, shard))
    with pytest.raises(CacheError) as raised:
        _ = entry["a"]
    sentence(raised, shard, "missing")
    assert same_bits(entry["b"], large(2))

    (damage,) = verify(writer.folder, repair=True).damage
    assert (damage.what, damage.lost, damage.whole) == (shard, ("a",), ())
    assert list(open_all(store.cache())) == ["b"]
    assert store.fs.glob(f"{writer.folder}/shards/{shard}*") == []


@pytest.mark.parametrize("old", [("zarr", "zstd"), ("hdf5", "none")])
def test_an_entry_is_converted_while_others_read_it(
    store: ObjectStore, old: tuple[str, str]
) -> None:
    new = ("hdf5", "zstd") if old[0] == "zarr" else ("zarr", "blosc")
    arrays = {"a": large(1), "b": large(2)}
    writer = write(store, arrays, old)
    writer.write_shard(1, features({"c": large(3)}))
    writer.publish()
    before = writer.shards()
    readers = [store.cache().open("made-up") for _ in range(2)]
    checksums = [readers[0].checksum(id) for id in "abc"]
    _ = readers[0]["a"], readers[0]["c"]  # the other reader has not opened the shards yet

    convert(readers[0], *new)
    after = sorted(set(writer.shards()) - set(before))
    assert len(after) == 2
    assert all(name.endswith(FORMATS[new[0]].suffix) for name in after)
    assert len(collect_garbage(store.cache(), minimum_age=0).garbage) == 2
    collect_garbage(store.cache(), minimum_age=0, delete=True)
    assert writer.shards() == after
    for entry in (*readers, store.cache().open("made-up")):
        assert [entry.checksum(id) for id in "abc"] == checksums
        for id, number in zip("abc", (1, 2, 3), strict=True):
            assert same_bits(entry[id], large(number))
    assert verify(writer.folder).damage == []


def test_a_listing_shows_every_entry(store: ObjectStore, tmp_path: Path) -> None:
    arrays = {"a": array(1), "b": array(2)}
    fill_store(store, arrays)
    local = path_of(fill(tmp_path, [arrays]))
    unpublished = store.cache().writer(spec(encoder="other"), {})
    unpublished.write_shard(0, features({"a": array(1)}))
    listed = {entry.encoder: entry for entry in listing(store.cache()).entries}
    assert listed["some/encoder"].utterances == 2
    size = sum(file.stat().st_size for file in local.rglob("*") if file.is_file())
    assert listed["some/encoder"].bytes == pytest.approx(size, abs=50)
    assert "not published yet" in listed[""].error
    assert "some/encoder" in str(listing(store.cache()))


def test_a_replaced_shard_is_garbage(store: ObjectStore) -> None:
    writer = fill_store(store, {"a": array(1)})
    (old,) = writer.shards()
    writer.write_shard(0, features({"a": array(2)}))
    writer.publish()
    (garbage,) = collect_garbage(store.cache(), minimum_age=0).garbage
    assert garbage.what.endswith(old)
    assert garbage.reason == "all its utterances are in newer shards"
    collect_garbage(store.cache(), minimum_age=0, delete=True)
    assert old not in writer.shards()
    assert same_bits(Entry(writer.folder)["a"], array(2))
