"""Verification finds each kind of damage, and accuses nothing else."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mser.cache import CacheError, Entry, UtteranceFeatures, verify
from mser.tests.support.cache_entries import FORMS, array, fill, path_of
from mser.tests.support.damaged_caches import (
    VICTIM,
    Found,
    Made,
    check,
    content,
    edit_index,
    flip,
    flip_features,
    found_in,
    made_index,
    make,
    noise,
)

# What is found ------------------------------------------------------------------------------------


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
        for said in (what, *lost, f"undamaged: {len(whole)} other" if whole else ""):
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
        made.writer.write_shard(9, [UtteranceFeatures(id, hashes[id], arrays[id]) for id in gone])
        made.writer.publish()
        check(made, arrays)


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_what_is_kept_stays_in_its_format_and_compression(
    tmp_path: Path, store: str, compression: str
) -> None:
    made = make(tmp_path, store, compression)
    flip_features(made, "1b")
    assert verify(made.writer.folder, repair=True).repaired
    assert all(made.writer.with_form_of(name) == made.writer for name in made.names)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs000000000001", "._zarr.json"])
def test_files_that_systems_leave_behind_accuse_nothing(tmp_path: Path, name: str) -> None:
    made = make(tmp_path, "zarr", "none")
    shard = made.path / "shards" / made.names[VICTIM]
    (shard / name).write_bytes(b"\0\0")
    (shard / "hidden_states" / name).write_bytes(b"\0\0")
    assert verify(made.writer.folder).damage == []
    check(made, made.arrays)


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_flipped_bit_is_found_wherever_it_is(
    tmp_path: Path, store: str, compression: str
) -> None:
    ids = ("a", "b")
    shard = {id: noise(n, 2 + n) for n, id in enumerate(ids)}
    writer = fill(tmp_path, [shard, {"c": array(1)}], store=store, compression=compression)
    (found,) = path_of(writer).glob("shards/00000-*")
    for file in [found] if found.is_file() else [one for one in found.rglob("*") if one.is_file()]:
        whole = file.read_bytes()
        for at in [*range(min(32, len(whole))), *range(32, len(whole), 1 + len(whole) // 20)]:
            flip(file, at, 1 << at % 8)
            with suppress(CacheError):  # and nothing else is raised by who reads it unverified
                assert Entry(writer.folder).read(ids)
            (damage,) = verify(writer.folder).damage
            assert damage.what == found.name, (file, at)
            assert sorted(damage.lost + damage.whole) == list(ids), (file, at)
            file.write_bytes(whole)
    assert verify(writer.folder).damage == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(FORMS),
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
