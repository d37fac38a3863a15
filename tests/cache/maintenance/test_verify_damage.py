"""Verification finds each kind of damage, and reports nothing else."""

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
    Finding,
    Made,
    check,
    content,
    damaged_index,
    edit_index,
    findings,
    flip,
    flip_features,
    make,
    noise,
)

pytestmark = pytest.mark.exhaustive

# Kinds of damage ----------------------------------------------------------------------------------


def one_number(made: Made) -> list[Finding]:
    a, b, c = made.ids()
    flip_features(made, b)
    return [(made.names[VICTIM], (b,), (a, c))]


def numbers_of_two_shards(made: Made) -> list[Finding]:
    for id in ("0a", "1a", "1c"):
        flip_features(made, id)
    return [(made.names[0], ("0a",), ("0b", "0c")), (made.names[1], ("1a", "1c"), ("1b",))]


def cut_off(made: Made) -> list[Finding]:
    made.data().write_bytes(made.data().read_bytes()[:-3])
    return [(made.names[VICTIM], made.ids(), ())]


def emptied(made: Made) -> list[Finding]:
    made.data().write_bytes(b"")
    return [(made.names[VICTIM], made.ids(), ())]


def one_byte_more(made: Made) -> list[Finding]:
    with made.data().open("ab") as file:
        file.write(b"\0")
    # Zarr's index is at the end of its file. HDF5 ignores the byte.
    ids, no_ids = made.ids(), ()
    lost, whole = (ids, no_ids) if made.writer.store == "zarr" else (no_ids, ids)
    return [(made.names[VICTIM], lost, whole)]


def flipped_header(made: Made) -> list[Finding]:
    """In the first byte of the metadata, without which no utterance can be read."""
    shard = made.path / "shards" / made.names[VICTIM]
    flip(shard / "hidden_states/zarr.json" if shard.is_dir() else shard, 0)
    return [(made.names[VICTIM], made.ids(), ())]


def flipped_rows(made: Made) -> list[Finding]:
    """In the positions of the utterances, which the index holds too."""
    shard = made.path / "shards" / made.names[VICTIM]
    file = shard / "zarr.json" if shard.is_dir() else shard
    flip(file, file.read_bytes().find(b'"checksums"'))
    return [(made.names[VICTIM], (), made.ids())]


def deleted_shard(made: Made) -> list[Finding]:
    shard = made.path / "shards" / made.names[VICTIM]
    result: list[Finding] = [(shard.name, made.ids(), ())]
    shutil.rmtree(shard) if shard.is_dir() else shard.unlink()
    return result


def deleted_data(made: Made) -> list[Finding]:
    if made.writer.store == "hdf5":
        return deleted_shard(made)
    made.data().unlink()
    return [(made.names[VICTIM], made.ids(), ())]


def deleted_metadata(made: Made) -> list[Finding]:
    if made.writer.store == "hdf5":
        return deleted_shard(made)
    (made.path / "shards" / made.names[VICTIM] / "zarr.json").unlink()
    return [(made.names[VICTIM], (), made.ids())]


def empty_folder(made: Made) -> list[Finding]:
    result = deleted_shard(made)
    (made.path / "shards" / result[0][0]).mkdir()
    return result


def swapped(made: Made) -> list[Finding]:
    shards, names = made.path / "shards", made.names
    for old, new in ((names[0], "x"), (names[1], names[0]), ("x", names[1])):
        (shards / old).rename(shards / new)
    return [(names[0], made.ids(0), ()), (names[1], made.ids(1), ())]


def another_entrys(made: Made) -> list[Finding]:
    """An undamaged shard of another entry, with the same form and the same ids."""
    shards = [{id: noise(99, 5) for id in made.ids()}]
    store, compression = made.writer.store, made.writer.compression
    root = made.path.parents[1]
    other = fill(root / "other", shards, store=store, compression=compression)
    (theirs,) = (path_of(other) / "shards").iterdir()
    result = deleted_shard(made)
    theirs.rename(made.path / "shards" / result[0][0])
    shutil.rmtree(root / "other")
    return result


def a_file_more(made: Made) -> list[Finding]:
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


def test_an_undamaged_entry_has_no_damage(made: Made) -> None:
    before = content(made.path)
    result = verify(made.writer.folder, repair=True)
    assert (result.shards, result.of_shards, result.utterances) == (3, 3, 9)
    assert (result.damage, result.unread, result.repaired) == ([], [], False)
    assert str(result) == f"{made.path}: 3 shards, 9 utterances, all as written"
    assert content(made.path) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_undamaged_utterances_are_kept(
    made: Made, damage: Callable[[Made], list[Finding]]
) -> None:
    arrays, hashes = made.arrays, made.writer.committed()
    expected = damage(made)
    before = content(made.path)

    result = verify(made.writer.folder)
    assert findings(result) == expected
    assert (result.shards, result.utterances, result.repaired) == (3, 9, False)
    assert content(made.path) == before, "verify writes nothing without repair"
    for what, lost, whole in expected:
        for text in (what, *lost, f"undamaged: {len(whole)} other" if whole else ""):
            assert text in str(result)
    assert "--repair" in str(result)
    assert verify(made.beside.folder).damage == []

    result = verify(made.writer.folder, repair=True)
    assert findings(result) == expected
    assert "repaired" in str(result)
    all_lost = {id for _, lost, _ in expected for id in lost}
    check(made, {id: arrays[id] for id in arrays if id not in all_lost})
    assert made.writer.committed() == {id: hashes[id] for id in hashes if id not in all_lost}
    assert verify(made.beside.folder).damage == []

    if all_lost:  # the next extraction extracts them again
        again = [UtteranceFeatures(id, hashes[id], arrays[id]) for id in all_lost]
        made.writer.write_shard(9, again)
        made.writer.publish()
        check(made, arrays)


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_repair_keeps_the_format_and_compression(
    tmp_path: Path, store: str, compression: str
) -> None:
    made = make(tmp_path, store, compression)
    flip_features(made, "1b")
    assert verify(made.writer.folder, repair=True).repaired
    assert all(made.writer.with_form_of(name) == made.writer for name in made.names)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs000000000001", "._zarr.json"])
def test_hidden_files_of_operating_systems_are_not_damage(tmp_path: Path, name: str) -> None:
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
    (path,) = path_of(writer).glob("shards/00000-*")
    for file in [file for file in (path, *path.rglob("*")) if file.is_file()]:
        whole = file.read_bytes()
        size = len(whole)
        for position in [*range(min(32, size)), *range(32, size, 1 + size // 20)]:
            flip(file, position, 1 << position % 8)
            with suppress(CacheError):  # a read without verification raises nothing else
                assert Entry(writer.folder).read(ids)
            (damage,) = verify(writer.folder).damage
            assert damage.what == path.name, (file, position)
            assert sorted(damage.lost + damage.whole) == list(ids), (file, position)
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
    for number, position, mask in flips:
        shard = made.path / "shards" / names[number]
        files = sorted(file for file in (shard, *shard.rglob("*")) if file.is_file())
        file = files[position % len(files)]
        flip(file, position % file.stat().st_size, mask)
    touched = {names[number] for number, *_ in flips}
    if with_index:
        edit_index(made)
    result = verify(made.writer.folder, repair=True)
    assert {damage.what for damage in result.damage} <= touched | {damaged_index(result)}
    lost = {id for damage in result.damage for id in damage.lost}
    untouched = {id for n, name in enumerate(names) if name not in touched for id in made.ids(n)}
    assert not lost & untouched
    entry = Entry(made.writer.folder)
    assert untouched | {id for damage in result.damage for id in damage.whole} <= set(entry.ids)
    if not with_index:  # without the index, the rows of a damaged shard are unknown
        assert set(entry.ids) == made.arrays.keys() - lost
    check(made, {id: made.arrays[id] for id in entry.ids})
