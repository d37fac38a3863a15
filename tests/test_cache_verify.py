"""Verification finds every kind of damage, accuses nothing else, and repair loses nothing whole."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EIO
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mser.cache import (
    CacheError,
    Entry,
    EntryWriter,
    FeatureCache,
    Features,
    convert,
    verify,
    verify_all,
)
from mser.cache.index import Index
from mser.cache.local_folder import LocalFolder
from mser.cache.shard import store_of
from mser.cache.verify import Verification
from mser.tests.cache_entries import DIM, LAYERS, Array, array, fill, path_of, same_bits, spec

FORMS = [("zarr", "none"), ("zarr", "zstd"), ("hdf5", "none"), ("hdf5", "zstd")]
BLOSC = [("zarr", "blosc"), ("hdf5", "blosc")]
VICTIM = 1  # the number of the shard that is damaged


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what a power cut leaves."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class Made:
    """An entry with a whole one beside it."""

    writer: EntryWriter
    shards: list[dict[str, Array]]
    beside: EntryWriter

    @property
    def path(self) -> Path:
        return path_of(self.writer)

    @property
    def names(self) -> list[str]:
        return self.writer.shards()

    @property
    def arrays(self) -> dict[str, Array]:
        return {id: states for shard in self.shards for id, states in shard.items()}

    def ids(self, number: int = VICTIM) -> tuple[str, ...]:
        return tuple(self.shards[number])

    def data(self, number: int = VICTIM) -> Path:
        """The file of a shard that holds the numbers."""
        shard = self.path / "shards" / self.names[number]
        return shard / "hidden_states/c/0/0/0" if shard.is_dir() else shard


def noise(seed: int, frames: int) -> Array:
    """Any bits, that no compression makes smaller."""
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (LAYERS, frames, DIM), "uint16")
    return bits.view("float16")


def existing(
    root: Path, shards: list[dict[str, Array]], store: str, compression: str, **changes: Any
) -> EntryWriter:
    """What ``fill`` returns, of an entry that is there."""
    assert shards
    return FeatureCache(root).existing(spec(**changes), {"made by": "a test"}, store, compression)


def make(root: Path, store: str, compression: str, fill: Callable[..., EntryWriter] = fill) -> Made:
    shards = [{f"{n}{x}": noise(9 * n + i, 5 + i) for i, x in enumerate("abc")} for n in range(3)]
    form: dict[str, Any] = {"store": store, "compression": compression}
    beside = fill(root, shards, encoder="beside", identity={}, **form)
    return Made(fill(root, shards, **form), shards, beside)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Entries that are made once, to be copied."""

    @cache
    def made(store: str, compression: str) -> Path:
        root = tmp_path_factory.mktemp("template")
        make(root, store, compression)
        return root

    return made


@pytest.fixture(params=FORMS, ids="-".join)
def made(
    request: pytest.FixtureRequest, tmp_path: Path, template: Callable[[str, str], Path]
) -> Made:
    store, compression = request.param
    root = shutil.copytree(template(store, compression), tmp_path / "cache")
    return make(root, store, compression, existing)


def flip(file: Path, at: int, mask: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= mask
    file.write_bytes(content)


def flip_features(made: Made, id: str) -> None:
    """Change one number of the last layer of an utterance."""
    number = int(id[0])
    wanted = made.shards[number][id][-1].tobytes()
    at = made.data(number).read_bytes().find(wanted)
    assert at > 0, "noise was compressed"
    flip(made.data(number), at + len(wanted) // 2)


# What is found ------------------------------------------------------------------------------------

Found = tuple[str, tuple[str, ...], tuple[str, ...]]  # of which shard, what is lost, what whole


def one_number(made: Made) -> list[Found]:
    a, b, c = made.ids()
    flip_features(made, b)
    return [(made.names[VICTIM], (b,), (a, c))]


def numbers_of_two_shards(made: Made) -> list[Found]:
    for id in ("0a", "1a", "1c"):
        flip_features(made, id)
    return [(made.names[0], ("0a",), ("0b", "0c")), (made.names[1], ("1a", "1c"), ("1b",))]


def cut_off(made: Made) -> list[Found]:
    made.data().write_bytes(made.data().read_bytes()[:-3])
    return [(made.names[VICTIM], made.ids(), ())]


def emptied(made: Made) -> list[Found]:
    made.data().write_bytes(b"")
    return [(made.names[VICTIM], made.ids(), ())]


def one_byte_more(made: Made) -> list[Found]:
    with made.data().open("ab") as file:
        file.write(b"\0")
    # Zarr's index is at the end of its file. HDF5 does not mind.
    every, none = made.ids(), ()
    lost, whole = (every, none) if made.writer.store == "zarr" else (none, every)
    return [(made.names[VICTIM], lost, whole)]


def flipped_header(made: Made) -> list[Found]:
    """In the beginning of the metadata, without which nothing can be read."""
    shard = made.path / "shards" / made.names[VICTIM]
    flip(shard / "hidden_states/zarr.json" if shard.is_dir() else shard, 0)
    return [(made.names[VICTIM], made.ids(), ())]


def flipped_rows(made: Made) -> list[Found]:
    """In what says where each utterance lies, which the index says too."""
    shard = made.path / "shards" / made.names[VICTIM]
    file = shard / "zarr.json" if shard.is_dir() else shard
    flip(file, file.read_bytes().find(b'"checksums"'))
    return [(made.names[VICTIM], (), made.ids())]


def deleted_shard(made: Made) -> list[Found]:
    shard = made.path / "shards" / made.names[VICTIM]
    found: list[Found] = [(shard.name, made.ids(), ())]
    shutil.rmtree(shard) if shard.is_dir() else shard.unlink()
    return found


def deleted_data(made: Made) -> list[Found]:
    found: list[Found] = [(made.names[VICTIM], made.ids(), ())]
    if made.writer.store == "hdf5":
        return deleted_shard(made)
    made.data().unlink()
    return found


def deleted_metadata(made: Made) -> list[Found]:
    if made.writer.store == "hdf5":
        return deleted_shard(made)
    (made.path / "shards" / made.names[VICTIM] / "zarr.json").unlink()
    return [(made.names[VICTIM], (), made.ids())]


def empty_folder(made: Made) -> list[Found]:
    found = deleted_shard(made)
    (made.path / "shards" / found[0][0]).mkdir()
    return found


def swapped(made: Made) -> list[Found]:
    shards, names = made.path / "shards", made.names
    for old, new in ((names[0], "x"), (names[1], names[0]), ("x", names[1])):
        (shards / old).rename(shards / new)
    return [(names[0], made.ids(0), ()), (names[1], made.ids(1), ())]


def another_entrys(made: Made) -> list[Found]:
    """A shard of the same form and the same ids, and whole; but of another entry."""
    shards = [{id: noise(99, 5) for id in made.ids()}]
    store, compression = made.writer.store, made.writer.compression
    root = made.path.parents[1]
    other = fill(root / "other", shards, store=store, compression=compression)
    (theirs,) = (path_of(other) / "shards").iterdir()
    found = deleted_shard(made)
    theirs.rename(made.path / "shards" / found[0][0])
    shutil.rmtree(root / "other")
    return found


def a_file_more(made: Made) -> list[Found]:
    if made.writer.store == "hdf5":
        return one_byte_more(made)
    (made.path / "shards" / made.names[VICTIM] / "notes.txt").write_text("mine")
    return [(made.names[VICTIM], (), made.ids())]


DAMAGE = [
    one_number,
    numbers_of_two_shards,
    cut_off,
    emptied,
    one_byte_more,
    flipped_header,
    flipped_rows,
    deleted_shard,
    deleted_data,
    deleted_metadata,
    empty_folder,
    swapped,
    another_entrys,
    a_file_more,
]


def found_in(result: Verification) -> list[Found]:
    return [(one.what, one.lost, one.whole) for one in result.damage]


def content(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_is_whole_is_accused_of_nothing(made: Made) -> None:
    before = content(made.path)
    result = verify(made.writer.folder, repair=True)
    assert (result.shards, result.of_shards, result.utterances) == (3, 3, 9)
    assert (result.damage, result.unread, result.repaired) == ([], [], False)
    assert str(result) == f"{made.path}: 3 shards, 9 utterances, all as written"
    assert content(made.path) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_what_is_whole_is_kept(
    made: Made, damage: Callable[[Made], list[Found]]
) -> None:
    arrays, hashes = made.arrays, made.writer.committed()
    expected = damage(made)
    before = content(made.path)

    result = verify(made.writer.folder)
    assert found_in(result) == expected
    assert (result.shards, result.utterances, result.repaired) == (3, 9, False)
    assert content(made.path) == before, "verify writes nothing unless it is asked to"
    for what, lost, whole in expected:
        for said in (what, *lost, f"whole: {len(whole)} more" if whole else ""):
            assert said in str(result)
    assert "--repair" in str(result)
    assert verify(made.beside.folder).damage == []

    result = verify(made.writer.folder, repair=True)
    assert found_in(result) == expected
    assert "repaired" in str(result)
    gone = {id for _, lost, _ in expected for id in lost}
    check(made, {id: arrays[id] for id in arrays if id not in gone})
    assert made.writer.committed() == {id: hashes[id] for id in hashes if id not in gone}
    assert verify(made.beside.folder).damage == []

    if gone:  # it is made again by the next extraction
        made.writer.write_shard(9, [Features(id, hashes[id], arrays[id]) for id in gone])
        made.writer.publish()
        check(made, arrays)


def check(made: Made, arrays: dict[str, Array]) -> None:
    """The entry holds these, bit by bit, in its own format, and nothing in it is damaged."""
    entry = Entry(made.writer.folder)
    assert list(entry.ids) == sorted(arrays)
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
    result = verify(made.writer.folder)
    assert (result.damage, result.unread, result.utterances) == ([], [], len(arrays))
    assert {store_of(name) for name in made.names} <= {made.writer.store}


@pytest.mark.parametrize(("store", "compression"), [*FORMS, *BLOSC])
def test_what_is_kept_stays_in_its_format_and_compression(
    tmp_path: Path, store: str, compression: str
) -> None:
    made = make(tmp_path, store, compression)
    flip_features(made, "1b")
    assert verify(made.writer.folder, repair=True).repaired
    assert all(made.writer.like(name) == made.writer for name in made.names)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs000000000001", "._zarr.json"])
def test_files_that_systems_leave_behind_accuse_nothing(tmp_path: Path, name: str) -> None:
    made = make(tmp_path, "zarr", "none")
    shard = made.path / "shards" / made.names[VICTIM]
    (shard / name).write_bytes(b"\0\0")
    (shard / "hidden_states" / name).write_bytes(b"\0\0")
    assert verify(made.writer.folder).damage == []
    check(made, made.arrays)


@pytest.mark.parametrize(("store", "compression"), [*FORMS, *BLOSC])
def test_a_flipped_bit_is_found_wherever_it_is(
    tmp_path: Path, store: str, compression: str
) -> None:
    ids = ("a", "b")
    shard = {id: noise(n, 2 + n) for n, id in enumerate(ids)}
    writer = fill(tmp_path, [shard, {"c": array(1)}], store=store, compression=compression)
    (found,) = path_of(writer).glob("shards/00000-*")
    for file in [found] if found.is_file() else [one for one in found.rglob("*") if one.is_file()]:
        whole = file.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 25)):
            flip(file, at, 1 << at % 8)
            (damage,) = verify(writer.folder).damage
            assert damage.what == found.name, (file, at)
            assert sorted(damage.lost + damage.whole) == list(ids), (file, at)
            file.write_bytes(whole)
    assert verify(writer.folder).damage == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([*FORMS, *BLOSC]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0), st.integers(1, 255)), max_size=4),
    st.booleans(),
)
def test_any_damage_is_repaired(
    tmp_path_factory: pytest.TempPathFactory,
    form: tuple[str, str],
    flips: list[tuple[int, int, int]],
    with_index: bool,
) -> None:
    """Any bytes of any shards, and perhaps of the index."""
    made = make(tmp_path_factory.mktemp("cache"), *form)
    names = made.names
    for number, at, mask in flips:
        shard = made.path / "shards" / names[number]
        files = sorted(file for file in (shard, *shard.rglob("*")) if file.is_file())
        file = files[at % len(files)]
        flip(file, at % file.stat().st_size, mask)
    touched = {names[number] for number, *_ in flips}
    if with_index:
        edit_index(made)
    result = verify(made.writer.folder, repair=True)
    assert {one.what for one in result.damage} <= touched | {made_index(result)}
    lost = {id for one in result.damage for id in one.lost}
    untouched = {id for n, name in enumerate(names) if name not in touched for id in made.ids(n)}
    assert not lost & untouched
    entry = Entry(made.writer.folder)
    assert untouched | {id for one in result.damage for id in one.whole} <= set(entry.ids)
    if not with_index:  # without it, a shard that no longer says what is in it cannot be asked
        assert set(entry.ids) == made.arrays.keys() - lost
    check(made, {id: made.arrays[id] for id in entry.ids})


# The index ----------------------------------------------------------------------------------------


def made_index(result: Verification) -> str:
    return next((one.what for one in result.damage if one.what.startswith("index-")), "")


def index_of(made: Made) -> Path:
    (file,) = made.path.glob("index-*.parquet")
    return file


def edit_index(made: Made) -> None:
    flip(index_of(made), index_of(made).stat().st_size // 2)


def cut_index(made: Made) -> None:
    index_of(made).write_bytes(index_of(made).read_bytes()[:-9])


def delete_index(made: Made) -> None:
    index_of(made).unlink()


@pytest.mark.parametrize("damage", [edit_index, cut_index, delete_index])
def test_a_damaged_index_is_made_again_from_the_shards(
    made: Made, damage: Callable[[Made], None]
) -> None:
    before, name = content(made.path), index_of(made).name
    damage(made)
    result = verify(made.writer.folder)
    assert found_in(result) == [(name, (), ())]
    assert (result.shards, result.utterances) == (3, 9)
    assert verify(made.writer.folder, repair=True).repaired
    check(made, made.arrays)
    after = content(made.path)
    (record,) = (path for path in after if path.name == "entry.json")
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} <= {record}


def forge(made: Made, column: str, values: list[object]) -> str:
    """Change the index and all that names it, so that nothing about it looks damaged."""
    entry = Entry(made.writer.folder)
    table = entry.index.table
    at = table.column_names.index(column)
    forged = table.set_column(at, table.field(at), [values])
    name = Index(forged).write(entry.folder)
    record = json.loads((made.path / "entry.json").read_text())
    (made.path / "entry.json").write_text(json.dumps({**record, "index": name}))
    (made.path / entry.index_name).unlink()
    assert pq.read_table(made.path / name)[column].to_pylist() == values
    return name


@pytest.mark.parametrize("column", ["offset", "length", "content_hash", "checksum"])
def test_a_forged_index_is_found_and_made_again(made: Made, column: str) -> None:
    values = Entry(made.writer.folder).index.table[column].to_pylist()
    values[3], values[4] = values[4], values[3]  # of two utterances of one shard
    name = forge(made, column, values)
    result = verify(made.writer.folder)
    assert found_in(result) == [(name, ("1a", "1b"), ())]
    assert made.names[VICTIM] in result.damage[0].reason
    assert verify(made.writer.folder, repair=True).repaired
    check(made, made.arrays)
    assert made.writer.committed() == {id: f"hash of {id}" for id in made.arrays}


def test_an_index_and_a_shard_damaged_at_once(made: Made) -> None:
    edit_index(made)
    flip_features(made, "1b")
    result = verify(made.writer.folder, repair=True)
    assert {(one.what[:5], one.lost) for one in result.damage} == {
        ("index", ()),
        ("00001", ("1b",)),
    }
    check(made, {id: states for id, states in made.arrays.items() if id != "1b"})


# What is not published, and what is superseded ----------------------------------------------------


def test_a_shard_that_is_not_published_yet_is_looked_at_too(made: Made) -> None:
    more = {"3a": noise(50, 4), "3b": noise(51, 4)}
    made.writer.write_shard(3, [Features(id, f"hash of {id}", a) for id, a in more.items()])
    made.shards.append(more)
    assert verify(made.writer.folder).utterances == 11
    flip_features(made, "3a")
    result = verify(made.writer.folder, repair=True)
    assert [(one.lost, one.whole) for one in result.damage] == [(("3a",), ("3b",))]
    check(made, {id: states for id, states in made.arrays.items() if id != "3a"})


@pytest.mark.parametrize("published", [True, False])
def test_an_old_copy_never_comes_back(made: Made, published: bool) -> None:
    """The damaged shard holds an older copy of what lies, changed since, in a newer one."""
    made.writer.write_shard(3, [Features("1b", "newer", array(7))])
    if published:
        made.writer.publish()
    flip_features(made, "1c")
    result = verify(made.writer.folder, repair=True)
    assert found_in(result) == [(result.damage[0].what, ("1c",), ("1a",))]
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
    assert found_in(verify(made.writer.folder, repair=True)) == [(lost, made.ids(), ())]
    entry = Entry(made.writer.folder)
    assert all(same_bits(entry[id], states) for id, states in made.arrays.items())
    assert verify(made.writer.folder).damage == []


# What cannot be read ------------------------------------------------------------------------------


def test_what_cannot_be_read_just_now_is_said_and_left_alone(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be whole: somebody else's right to read, or a server that is down."""
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
        assert [one.lost for one in result.damage] == [("0a",)]
        assert verify_all([made.writer.folder, made.beside.folder], 1).damaged
    check(made, {id: states for id, states in made.arrays.items() if id != "0a"})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "\0"])
def test_a_damaged_record_is_said_in_one_sentence(tmp_path: Path, content: str) -> None:
    made = make(tmp_path, "zarr", "none")
    flip_features(made, "1b")
    (path_of(made.beside) / "entry.json").write_text(content)
    with pytest.raises(CacheError) as raised:
        verify(made.beside.folder, repair=True)
    said = str(raised.value)
    assert f"{path_of(made.beside)}/entry.json" in said
    assert "\n" not in said

    # It takes no other entry's verification away.
    places = FeatureCache(tmp_path).places("made-up")
    both = verify_all(places, 1)
    assert both.damaged
    assert sorted(len(one.damage) for one in both.entries) == [0, 1]
    assert [one.unread for one in both.entries if one.unread] == [[said]]
    assert said in str(both)
    assert verify_all(places, 1, repair=True).damaged, "not everything was repaired"
    assert not verify_all([made.writer.folder], 1).damaged


def test_an_entry_that_was_never_published(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}], publish=False)
    with pytest.raises(CacheError, match="never published"):
        verify(writer.folder)
    assert verify_all(FeatureCache(tmp_path).places("made-up"), 1).entries == ()


# Sampling -----------------------------------------------------------------------------------------


def test_a_sample_looks_at_some_shards_and_says_so(tmp_path: Path) -> None:
    shards = [{f"{n}a": noise(n, 5)} for n in range(10)]
    beside = fill(tmp_path, [], encoder="beside", identity={})
    made = Made(fill(tmp_path, shards), shards, beside)
    for n in range(10):
        flip_features(made, f"{n}a")
    asked: list[str] = []
    seen: set[str] = set()

    def each(names: list[str]) -> list[str]:
        asked.extend(names)
        return names

    for _ in range(40):
        asked.clear()
        result = verify(made.writer.folder, 0.3, each=each)
        assert (result.shards, result.of_shards, result.utterances) == (3, 10, 3)
        assert re.search(r": 3 of 10 shards, chosen at random, 3 utterances, 3 dam", str(result))
        assert [one.what for one in result.damage] == asked
        seen.update(asked)
    assert seen == set(made.names), "chance never came to some"

    assert verify(made.writer.folder, 0).shards == 1, "at least one"
    assert verify(beside.folder, 0.5).shards == 0
    repaired = verify(made.writer.folder, 0.5, repair=True)
    assert len(repaired.damage) == 5
    assert len(Entry(made.writer.folder)) == 5
    assert len(verify(made.writer.folder).damage) == 5


def test_a_result_may_be_written_as_json(made: Made) -> None:
    flip_features(made, "1b")
    result = verify_all([made.writer.folder], 1)
    (told,) = json.loads(json.dumps(result.as_json()))["entries"]
    assert told["entry"] == str(made.path)
    assert told["damage"][0]["lost"] == ["1b"]
    assert told["damage"][0]["whole"] == ["1a", "1c"]
