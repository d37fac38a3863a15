"""Verification of indexes, of unpublished shards, and of samples."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mser.cache import (
    CacheError,
    Entry,
    FeatureCache,
    NotFoundError,
    UtteranceFeatures,
    convert,
    verify,
    verify_all,
)
from mser.cache.index import Index
from mser.cache.storage.local import LocalFolder
from mser.tests.support.cache_entries import array, fill, path_of, same_bits
from mser.tests.support.damaged_caches import (
    VICTIM,
    Made,
    check,
    content,
    edit_index,
    findings,
    flip_features,
    index_of,
    make,
    noise,
)

# The index ----------------------------------------------------------------------------------------


def cut_index(made: Made) -> None:
    index_of(made).write_bytes(index_of(made).read_bytes()[:-9])


def delete_index(made: Made) -> None:
    index_of(made).unlink()


@pytest.mark.parametrize("damage", [edit_index, cut_index, delete_index])
def test_a_damaged_index_is_rebuilt_from_the_shards(
    made: Made, damage: Callable[[Made], None]
) -> None:
    before, name = content(made.path), index_of(made).name
    damage(made)
    result = verify(made.writer.folder)
    assert findings(result) == [(name, (), ())]
    assert (result.shards, result.utterances) == (3, 9)
    assert verify(made.writer.folder, repair=True).repaired
    check(made, made.arrays)
    after = content(made.path)
    (record,) = (path for path in after if path.name == "entry.json")
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} <= {record}


def test_publishing_rebuilds_a_damaged_index(made: Made) -> None:
    edit_index(made)
    made.writer.publish()
    check(made, made.arrays)


def forge(made: Made, column: str, values: list[object]) -> str:
    """Change the index, its name and its record, so it does not look damaged."""
    entry = Entry(made.writer.folder)
    table = entry.index.table
    position = table.column_names.index(column)
    forged = table.set_column(position, table.field(position), [values])
    name = Index(forged).write(entry.folder)
    record = json.loads((made.path / "entry.json").read_text())
    (made.path / "entry.json").write_text(json.dumps({**record, "index": name}))
    (made.path / entry.index_name).unlink()
    assert pq.read_table(made.path / name)[column].to_pylist() == values
    return name


@pytest.mark.parametrize("column", ["offset", "length", "content_hash", "checksum"])
def test_a_forged_index_is_found_and_rebuilt(made: Made, column: str) -> None:
    values = Entry(made.writer.folder).index.table[column].to_pylist()
    values[3], values[4] = values[4], values[3]  # of two utterances of one shard
    name = forge(made, column, values)
    result = verify(made.writer.folder)
    assert findings(result) == [(name, ("1a", "1b"), ())]
    assert made.names[VICTIM] in result.damage[0].reason
    assert verify(made.writer.folder, repair=True).repaired
    check(made, made.arrays)
    assert made.writer.committed() == {id: f"hash of {id}" for id in made.arrays}


def test_an_index_and_a_shard_are_damaged_at_once(made: Made) -> None:
    edit_index(made)
    flip_features(made, "1b")
    result = verify(made.writer.folder, repair=True)
    assert {(damage.what[:5], damage.lost) for damage in result.damage} == {
        ("index", ()),
        ("00001", ("1b",)),
    }
    check(made, {id: states for id, states in made.arrays.items() if id != "1b"})


# Unpublished shards and older copies --------------------------------------------------------------


def test_an_unpublished_shard_is_verified_too(made: Made) -> None:
    more = {"3a": noise(50, 4), "3b": noise(51, 4)}
    made.writer.write_shard(
        3, [UtteranceFeatures(id, f"hash of {id}", a) for id, a in more.items()]
    )
    made.shards.append(more)
    assert verify(made.writer.folder).utterances == 11
    flip_features(made, "3a")
    result = verify(made.writer.folder, repair=True)
    assert [(damage.lost, damage.whole) for damage in result.damage] == [(("3a",), ("3b",))]
    check(made, {id: states for id, states in made.arrays.items() if id != "3a"})


@pytest.mark.parametrize("published", [True, False])
def test_a_repair_never_restores_an_older_copy(made: Made, published: bool) -> None:
    """The damaged shard holds an older copy of an utterance that a newer shard holds too."""
    made.writer.write_shard(3, [UtteranceFeatures("1b", "newer", array(7))])
    if published:
        made.writer.publish()
    flip_features(made, "1c")
    result = verify(made.writer.folder, repair=True)
    assert findings(result) == [(result.damage[0].what, ("1c",), ("1a",))]
    arrays = {id: states for id, states in made.arrays.items() if id != "1c"}
    check(made, arrays | {"1b": array(7)})
    assert Entry(made.writer.folder).content_hash("1b") == "newer"


def test_a_lost_shard_is_replaced_by_a_copy_that_a_conversion_left(made: Made) -> None:
    other = "hdf5" if made.writer.store == "zarr" else "zarr"
    old = made.names
    convert(Entry(made.writer.folder), other, "none")
    (lost,) = (name for name in set(made.names) - set(old) if name.startswith("00001-"))
    folder = made.path / "shards" / lost
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    assert findings(verify(made.writer.folder, repair=True)) == [(lost, made.ids(), ())]
    entry = Entry(made.writer.folder)
    assert all(same_bits(entry[id], states) for id, states in made.arrays.items())
    assert verify(made.writer.folder).damage == []


# Unreadable shards --------------------------------------------------------------------------------


def test_a_shard_that_cannot_be_read_at_present_is_reported_and_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be undamaged: permission may be missing, or a server may be down."""
    names, original = made.names, LocalFolder.local
    flip_features(made, "0a")

    @contextmanager
    def failing(self: LocalFolder, name: str) -> Iterator[Path]:
        with original(self, name) as path:
            if name == names[VICTIM]:
                raise CacheError(f"cannot read {path}") from OSError(EIO, "Input/output error")
            yield path

    with monkeypatch.context() as broken:
        broken.setattr(LocalFolder, "local", failing)
        result = verify(made.writer.folder, repair=True)
        assert names[VICTIM] in "".join(result.unread)
        assert f"cannot read {made.path}/shards/{names[VICTIM]}" in str(result)
        assert "1 damaged, 1 not read" in str(result)
        assert [damage.lost for damage in result.damage] == [("0a",)]
        assert verify_all([made.writer.folder, made.beside.folder], 1).damaged
    check(made, {id: states for id, states in made.arrays.items() if id != "0a"})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "\0"])
def test_a_damaged_record_is_reported_in_one_sentence(tmp_path: Path, content: str) -> None:
    made = make(tmp_path, "zarr", "none")
    flip_features(made, "1b")
    (path_of(made.beside) / "entry.json").write_text(content)
    with pytest.raises(CacheError) as raised:
        verify(made.beside.folder, repair=True)
    message = str(raised.value)
    assert f"{path_of(made.beside)}/entry.json" in message
    assert "\n" not in message

    # Other entries are verified.
    folders = FeatureCache(tmp_path).entry_folders("made-up")
    both = verify_all(folders, 1)
    assert both.damaged
    assert sorted(len(result.damage) for result in both.entries) == [0, 1]
    assert [result.unread for result in both.entries if result.unread] == [[message]]
    assert message in str(both)
    assert verify_all(folders, 1, repair=True).damaged, "not everything was repaired"
    assert not verify_all([made.writer.folder], 1).damaged


def test_an_entry_that_was_never_published_is_not_found(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}], publish=False)
    with pytest.raises(NotFoundError, match="never published"):
        verify(writer.folder)
    assert verify_all(FeatureCache(tmp_path).entry_folders("made-up"), 1).entries == ()


# Sampling -----------------------------------------------------------------------------------------


def test_a_sample_verifies_some_shards_and_reports_how_many(tmp_path: Path) -> None:
    shards = [{f"{n}a": noise(n, 5)} for n in range(10)]
    beside = fill(tmp_path, [], encoder="beside", identity={})
    made = Made(fill(tmp_path, shards), shards, beside)
    for n in range(10):
        flip_features(made, f"{n}a")
    chosen: list[str] = []
    seen: set[str] = set()

    def each(names: list[str]) -> list[str]:
        chosen.extend(names)
        return names

    for _ in range(40):
        chosen.clear()
        result = verify(made.writer.folder, 0.3, each=each)
        assert (result.shards, result.of_shards, result.utterances) == (3, 10, 3)
        assert re.search(r": 3 of 10 shards, chosen at random, 3 utterances, 3 dam", str(result))
        assert [damage.what for damage in result.damage] == chosen
        seen.update(chosen)
    assert seen == set(made.names), "some shards were never chosen"

    assert verify(made.writer.folder, 0).shards == 1, "at least one"
    assert verify(beside.folder, 0.5).shards == 0
    repaired = verify(made.writer.folder, 0.5, repair=True)
    assert len(repaired.damage) == 5
    assert len(Entry(made.writer.folder)) == 5
    assert len(verify(made.writer.folder).damage) == 5


def test_a_result_may_be_written_as_json(made: Made) -> None:
    flip_features(made, "1b")
    result = verify_all([made.writer.folder], 1)
    (entry,) = json.loads(json.dumps(result.as_json()))["entries"]
    assert entry["entry"] == str(made.path)
    assert entry["damage"][0]["lost"] == ["1b"]
    assert entry["damage"][0]["whole"] == ["1a", "1c"]
