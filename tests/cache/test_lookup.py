"""A large index is read by blocks, and says the same as the Parquet file."""

import pickle
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mser.cache import (
    DamagedError,
    Entry,
    EntryWriter,
    FeatureCache,
    UnknownUtteranceError,
    UtteranceFeatures,
    collect_garbage,
    lookup,
    pooled_entry,
    verify,
)
from mser.cache import index as index_module
from mser.cache.index import LookupIndex
from mser.tests.support.cache_entries import ODD_IDS, array, fill, path_of, same_bits, spec
from mser.tests.support.object_store import Asked, ObjectStore

IDS = [*ODD_IDS, *(f"utt{number}" for number in range(60))]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "LOOKUP_FROM", 10)
    monkeypatch.setattr(lookup, "_ROWS", 7)
    monkeypatch.setattr(lookup, "_KEPT", 2)


@pytest.fixture
def writer(tmp_path: Path) -> EntryWriter:
    """An entry of 71 utterances in four shards, with a lookup file."""
    ids = random.Random(0).sample(IDS, len(IDS))
    numbers = {id: IDS.index(id) % 100 for id in ids}
    return fill(
        tmp_path,
        [{id: array(numbers[id], 1 + numbers[id] % 3) for id in ids[n::4]} for n in range(4)],
    )


def lookup_file(writer: EntryWriter) -> Path:
    (file,) = path_of(writer).glob("index-*.lookup")
    return file


def test_rows_are_those_of_the_parquet_file(writer: EntryWriter) -> None:
    entry = Entry(writer.folder)
    assert isinstance(entry.index, LookupIndex)
    (parquet,) = path_of(writer).glob("index-*.parquet")
    rows = pq.read_table(parquet).to_pylist()
    assert len(entry) == len(rows) == len(IDS)
    assert list(entry.ids) == [row["id"] for row in rows] == sorted(IDS)
    for position in (0, 6, 7, len(rows) - 1, -1):
        assert entry.ids[position] == rows[position]["id"]
    assert entry.ids[5:20:3] == sorted(IDS)[5:20:3]
    for row in rows:
        assert vars(entry.index[row["id"]]) == row
        assert row["id"] in entry
    for absent in ("0", "utt", "utt60", "zz", "\U0010ffff", "train/dia0_utt00"):
        assert absent not in entry
    with pytest.raises(IndexError):
        _ = entry.ids[len(rows)]
    assert "table" not in vars(entry.index), "the whole index was read"
    assert entry.index.frames() == sum(row["length"] for row in rows)
    assert entry.index.shards() == sorted({row["shard"] for row in rows})
    shard = rows[3]["shard"]
    assert entry.index.rows_in([shard]).to_pylist() == [r for r in rows if r["shard"] == shard]


def test_features_are_read_in_this_and_other_processes(writer: EntryWriter) -> None:
    for entry in (Entry(writer.folder), pickle.loads(pickle.dumps(Entry(writer.folder)))):
        for number, id in enumerate(IDS):
            assert same_bits(entry[id], array(number % 100, 1 + number % 100 % 3))


def test_an_entry_without_a_lookup_file_opens_and_gets_one_with_the_next_publication(
    writer: EntryWriter,
) -> None:
    lookup_file(writer).unlink()
    assert not isinstance(Entry(writer.folder).index, LookupIndex)
    assert same_bits(Entry(writer.folder)["utt3"], array(IDS.index("utt3"), 3))
    writer.publish()
    assert lookup_file(writer).exists()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, 0.99, -1.0])
def test_a_changed_byte_is_damage_and_a_repair_makes_the_file_again(
    writer: EntryWriter, place: float
) -> None:
    file = lookup_file(writer)
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[int(place * len(whole)) if place >= 0 else -1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(DamagedError, match=f"{file.name} is damaged"):
        Entry(writer.folder).index.check()
    result = verify(writer.folder, repair=True)
    assert file.name in result.damage[0].reason
    assert file.read_bytes() == whole
    assert not verify(writer.folder).damage


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 1000])
def test_a_file_that_is_no_lookup_is_damage(writer: EntryWriter, content: bytes) -> None:
    lookup_file(writer).write_bytes(content)
    with pytest.raises(DamagedError, match="delete it"):
        _ = Entry(writer.folder).index


def test_a_replaced_lookup_stays_for_readers_until_gc_deletes_it(
    tmp_path: Path, writer: EntryWriter
) -> None:
    reader, old = Entry(writer.folder), lookup_file(writer)
    assert len(reader) == len(IDS)
    writer.write_shard(9, [UtteranceFeatures("new", "hash", array(1))])
    writer.publish()
    assert same_bits(reader["utt7"], array(IDS.index("utt7"), 1 + IDS.index("utt7") % 3))
    assert "new" not in reader
    collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=0)
    assert not old.exists()
    assert same_bits(reader["utt8"], array(IDS.index("utt8"), 1 + IDS.index("utt8") % 3))
    assert len(Entry(writer.folder)) == len(IDS) + 1


def test_pooled_features_of_a_large_entry_are_made_once(
    tmp_path: Path, writer: EntryWriter
) -> None:
    cache = FeatureCache(tmp_path)
    pooled = pooled_entry(cache, Entry(writer.folder))
    assert isinstance(pooled.index, LookupIndex)
    made: list[int] = []
    pooled_entry(cache, Entry(writer.folder), made.append)
    assert made == []


# On an object store -------------------------------------------------------------------------------


@pytest.fixture
def remote(store: ObjectStore, writer: EntryWriter, tmp_path: Path) -> Entry:
    """The same entry on an object store, none of whose requests is counted yet."""
    copied = store.cache().writer(spec(), {})
    states = Entry(writer.folder)
    for number, ids in enumerate((IDS[:40], IDS[40:])):
        features = [UtteranceFeatures(id, f"hash of {id}", states[id]) for id in ids]
        copied.write_shard(number, features)
    copied.publish("0" * 12)
    entry = Entry(copied.folder)
    store.forget()
    return entry


def lookups(store: ObjectStore) -> list[Asked]:
    """The requests for the content of lookup files since the last call."""
    asked = [one for one in store.asked if one.method == "GET" and one.path.endswith(".lookup")]
    store.forget()
    return asked


def test_an_object_store_is_asked_once_for_the_rows_of_many_utterances(
    store: ObjectStore, remote: Entry
) -> None:
    assert len(remote) == len(IDS)
    assert len(lookups(store)) == 1, "the directory"
    spread = sorted(IDS)[3::5]  # in each of the eleven blocks
    read = remote.read(spread)
    assert [len(states[0]) for states in read] == [1 + IDS.index(id) % 100 % 3 for id in spread]
    assert len(lookups(store)) == 1
    assert not [one for one in store.asked if one.path.endswith(".parquet")]


def test_blocks_far_from_each_other_are_requests_of_their_own_and_those_between_are_not_read(
    store: ObjectStore, remote: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_AHEAD", 2)
    ids = sorted(IDS)
    whole = remote.folder.size(lookup.lookup_of(remote.index_name))
    _ = remote.index
    lookups(store)
    remote.read([ids[0], ids[8], ids[40], ids[-1]])  # blocks 0, 1, 5 and 10
    asked = lookups(store)
    assert len(asked) == 3
    assert 0 < sum(one.bytes for one in asked) < whole / 2


def test_rows_asked_for_one_after_the_other_are_read_ahead(
    store: ObjectStore, remote: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_AHEAD", 4)
    monkeypatch.setattr(lookup, "_KEPT", 100)
    _ = remote.index
    lookups(store)
    assert [remote.length(id) for id in sorted(IDS)] == [
        1 + IDS.index(id) % 100 % 3 for id in sorted(IDS)
    ]
    assert len(lookups(store)) == 3, "eleven blocks, four at a time"


def test_all_ids_of_an_object_store_are_few_requests(store: ObjectStore, remote: Entry) -> None:
    _ = remote.index
    lookups(store)
    assert list(remote.ids) == sorted(IDS)
    remote.index.check()
    assert len(lookups(store)) == 2


def test_an_unknown_utterance_among_many_is_named(remote: Entry) -> None:
    for unknown in ("0", "utt60"):  # before the first block, and inside one
        with pytest.raises(UnknownUtteranceError, match=f"the utterance '{unknown}'"):
            remote.read(["utt1", unknown])


def test_a_small_entry_of_an_object_store_has_no_lookup_file_and_costs_no_request_for_one(
    store: ObjectStore, remote: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LOOKUP_FROM", len(IDS) + 1)
    small = store.cache().writer(spec(dataset="small"), {})
    small.write_shard(0, [UtteranceFeatures("a", "hash", array(1))])
    small.publish("0" * 12)
    store.forget()
    assert len(Entry(small.folder)) == 1
    assert not [one for one in store.asked if ".lookup" in one.path]
