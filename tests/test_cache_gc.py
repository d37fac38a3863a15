"""Garbage collection names what is of no use, with the reason, and touches nothing else."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from mser.cache import CacheError, Entry, EntryWriter, FeatureCache, Features, collect, convert
from mser.cache.gc import Collection
from mser.cache.leases import Lease, held
from mser.cache.local_folder import LocalFolder
from mser.tests.cache_entries import Array, array, fill, path_of, same_bits

DAY = 86400.0
SHARDS = [{f"{n}{x}": array(3 * n + i, 2 + i) for i, x in enumerate("abc")} for n in range(3)]
ARRAYS = {id: states for shard in SHARDS for id, states in shard.items()}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what a power cut leaves."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def make(root: Path, store: str = "zarr", compression: str = "none") -> EntryWriter:
    """An entry with its manifest and two runs, and another beside it."""
    fill(root, SHARDS[:1], publish=False, encoder="beside", identity={}).publish(name(root, ARRAYS))
    writer = fill(root, SHARDS, publish=False, store=store, compression=compression)
    writer.publish(name(root, ARRAYS))
    return writer


def name(root: Path, ids: Iterable[str]) -> str:
    """Write a manifest that names these, and return its digest."""
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


def found(result: Collection) -> list[tuple[str, str]]:
    return [(one.what, one.reason) for one in result.garbage]


def gc(root: Path, *, yes: bool = False) -> Collection:
    return collect(FeatureCache(root), yes=yes)


# What is garbage ----------------------------------------------------------------------------------

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


def temporary_entry(folder: Path) -> tuple[Path, str]:
    """As the deletion of an entry leaves it that was killed in the middle."""
    entry = next(folder.rglob("entry.json")).parent
    path = folder / f".tmp-0123-{entry.name}"
    shutil.copytree(entry, path, copy_function=shutil.copy)  # it is young
    return path, KILLED


def test_an_entry_that_is_half_deleted_is_no_entry(tmp_path: Path) -> None:
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
        (mine,) = held(writer.folder / "leases").values()
    assert mine is not None
    mine = Lease(**{**asdict(mine), "since": now, "beat": now, **changes})
    path = path_of(writer) / "leases" / "shard-0.0000.json"
    path.write_text(json.dumps(asdict(mine)))
    return path


def lease_of_a_dead_process(writer: EntryWriter) -> tuple[Path, str]:
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return lease_of(writer, process=process), DEAD


def lease_of_a_dead_host(writer: EntryWriter) -> tuple[Path, str]:
    return lease_of(writer, host="elsewhere", beat=time.time() - DAY), DEAD


def lease_of_nobody(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / "leases" / "shard-0.0000.json"
    path.write_bytes(b"")
    return path, DEAD


def superseded_shard(writer: EntryWriter) -> tuple[Path, str]:
    old = path_of(writer) / "shards" / writer.shards()[1]
    for id in SHARDS[1]:
        writer.write_shard(9, [Features(id, "newer", array(7))])
    writer.publish()
    return old, "all of it lies in newer shards"


def damaged_unused_shard(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / "shards" / writer.write_shard(5, [Features("z", "hash", array(1))])
    if path.is_file():
        path.write_bytes(path.read_bytes()[:-9])
    else:
        (path / "zarr.json").write_bytes(b"\0")
    return path, "a shard that is damaged, and of which nothing is in use"


def emptied_unused_shard(writer: EntryWriter) -> tuple[Path, str]:
    path = path_of(writer) / "shards" / f"00005-{'0' * 32}"
    path.mkdir()
    return path, "a shard that is damaged, and of which nothing is in use"


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
    "lease-unreadable": lease_of_nobody,
    "superseded": superseded_shard,
    "damaged": damaged_unused_shard,
    "emptied": emptied_unused_shard,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_garbage_is_named_and_then_deleted_and_nothing_else(
    tmp_path: Path, plant: Callable[[EntryWriter], tuple[Path, str]]
) -> None:
    writer = make(tmp_path)
    age(tmp_path)
    path, reason = plant(writer)
    before = content(tmp_path)
    size = sum(len(c or b"") for p, c in before.items() if p == path or path in p.parents)

    assert not gc(tmp_path, yes=True).garbage, "it is young"
    assert content(tmp_path) == before

    age(tmp_path)
    result = gc(tmp_path)
    assert found(result) == [(str(path), reason)]
    assert (result.deleted, result.unread, result.garbage[0].bytes) == (False, [], size)
    assert f"{path}: {reason}" in str(result)
    assert "1 may be deleted, with --yes" in str(result)
    assert content(tmp_path) == before, "nothing is deleted without yes"

    result = gc(tmp_path, yes=True)
    assert (found(result), result.deleted) == ([(str(path), reason)], True)
    assert "1 deleted" in str(result)
    assert content(tmp_path) == {
        one: c for one, c in before.items() if one != path and path not in one.parents
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
    assert sorted(set(found(gc(tmp_path)))) == sorted(set(expected))
    assert sorted(set(found(gc(tmp_path, yes=True)))) == sorted(set(expected))
    assert gc(tmp_path).garbage == []
    now = Entry(writer.folder)
    for id, states in ARRAYS.items():
        assert same_bits(now[id], array(7) if id in SHARDS[1] else states)
        if id not in SHARDS[1]:
            assert same_bits(entry[id], states)


def test_several_collections_at_once(tmp_path: Path) -> None:
    writer = make(tmp_path)
    for _ in range(5):
        for n, plant in enumerate(PLANTS.values()):
            path, _ = plant(writer)
            if path.name.startswith(".tmp-"):
                path.rename(path.with_name(f"{path.name}{n}"))
        age(tmp_path)
        with ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(gc, tmp_path, yes=True) for _ in range(4)]:
                assert result.result().deleted
        gc(tmp_path, yes=True)  # two that delete one folder may leave a part of it to the next
        assert gc(tmp_path).garbage == []
    assert set(Entry(writer.folder).ids) == ARRAYS.keys()


# What is none -------------------------------------------------------------------------------------


def leave_alone(root: Path, writer: EntryWriter | None = None) -> Collection:
    """Nothing is garbage, and nothing changes, however old it is."""
    age(root)
    before = content(root)
    result = gc(root, yes=True)
    assert found(result) == []
    assert content(root) == before
    if writer is not None:
        assert Entry(writer.folder).ids
    return result


def test_a_whole_cache_holds_no_garbage(tmp_path: Path) -> None:
    assert str(leave_alone(tmp_path, make(tmp_path))) == f"{tmp_path}: nothing to delete"
    assert gc(tmp_path / "none").garbage == []


def test_leases_of_those_who_may_be_at_work(tmp_path: Path) -> None:
    writer = make(tmp_path)
    lease_of(writer)
    leave_alone(tmp_path, writer)
    lease_of(writer, host="elsewhere", process=1)
    leave_alone(tmp_path, writer)


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_shards_that_are_not_published_yet(tmp_path: Path, store: str) -> None:
    """A running writer's: new utterances, and changed ones, alone or with unchanged ones."""
    writer = make(tmp_path, store)
    writer.write_shard(5, [Features("new", "hash", array(1))])
    writer.write_shard(6, [Features("0a", "changed", array(2))])
    writer.write_shard(7, [Features("0b", "hash of 0b", array(1)), Features("n", "h", array(3))])
    leave_alone(tmp_path, writer)
    writer.publish(name(tmp_path, [*ARRAYS, "new", "n"]))
    entry = Entry(writer.folder)
    assert same_bits(entry["new"], array(1))
    assert same_bits(entry["0a"], array(2))


def test_an_entry_that_was_never_published(tmp_path: Path) -> None:
    """A first extraction may take days, and an import writes its manifest first."""
    fill(tmp_path, SHARDS, publish=False)
    name(tmp_path, ARRAYS)
    leave_alone(tmp_path)
    make(tmp_path / "published")
    fill(tmp_path / "published", SHARDS, publish=False, encoder="new", identity={"weights": "new"})
    name(tmp_path / "published", ["of the new one"])
    leave_alone(tmp_path / "published")


def test_what_people_leave_in_a_cache(tmp_path: Path) -> None:
    writer = make(tmp_path)
    for folder in (tmp_path, path_of(writer).parent, path_of(writer), path_of(writer) / "shards"):
        for file in ("notes.txt", "corpus-notes.txt", "index-old.parquet", ".DS_Store", "tmp-1"):
            (folder / file).write_text("mine")
        (folder / "experiment").mkdir()
        (folder / "experiment" / "notes.txt").write_text("mine")
        (folder / ".snapshot").mkdir()
        (folder / ".snapshot" / "notes.txt").write_text("mine")
    leave_alone(tmp_path, writer)


@pytest.mark.parametrize("file", ["entry.json", "index-*.parquet"])
def test_of_a_damaged_entry_nothing_is_deleted(tmp_path: Path, file: str) -> None:
    """Neither its shards nor its manifest; of others, what is garbage."""
    root = tmp_path / "cache"
    writer = fill(root, SHARDS, publish=False)
    manifest = name(root, ARRAYS)
    writer.publish(manifest)
    superseded_shard(writer)
    beside = fill(root, SHARDS[:1], publish=False, encoder="beside", identity={})
    beside.publish(name(root, ["of beside"]))
    orphan_index(beside)
    orphan_manifest(beside)
    (damaged,) = path_of(writer).glob(file)
    damaged.write_bytes(damaged.read_bytes()[:-30])
    age(root)
    before = content(root)
    result = gc(root, yes=True)
    others = {"an index that was replaced", "no longer in the corpus"}
    if file != "entry.json":  # of which manifest it is is known
        others.add("a manifest that was replaced")
    assert {reason for _, reason in found(result)} == others
    assert [damaged.name in said and "\n" not in said for said in result.unread] == [True]
    assert f"left alone: {result.unread[0]}" in str(result)
    ours = {p: c for p, c in before.items() if path_of(writer) in p.parents}
    ours |= {p: c for p, c in before.items() if p.name == f"corpus-{manifest}.parquet"}
    assert ours.items() <= content(root).items()


def test_a_shard_that_cannot_be_read_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole, and the only copy of what a running writer has made."""
    writer = make(tmp_path)
    shard = writer.write_shard(5, [Features("new", "hash", array(1))])

    def failing(self: LocalFolder, name: str, *_: object) -> bytes:
        if shard in name:
            raise CacheError(f"cannot read {self}/{name}: Stale file handle")
        return (self.at / name).read_bytes()

    with monkeypatch.context() as broken:
        broken.setattr(LocalFolder, "read", failing)
        leave_alone(tmp_path, writer)
    writer.publish()
    assert same_bits(Entry(writer.folder)["new"], array(1))


# What is no longer in the corpus ------------------------------------------------------------------

FORMS = [("zarr", "none"), ("zarr", "zstd"), ("hdf5", "none"), ("hdf5", "blosc")]


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_utterances_that_left_the_corpus(tmp_path: Path, store: str, compression: str) -> None:
    writer = make(tmp_path, store, compression)
    gone = {"0b", *SHARDS[1]}
    kept = {id: states for id, states in ARRAYS.items() if id not in gone}
    before, opened, unread = (Entry(writer.folder) for _ in range(3))
    assert opened["2a"].size
    assert opened["0a"].size
    writer.publish(name(tmp_path, kept))
    (tmp_path / "made-up" / f"corpus-{before.manifest}.parquet").touch()
    first, second, third = writer.shards()
    age(tmp_path)
    shards = path_of(writer) / "shards"
    expected = [
        (f"{shards}/{first}: 1 of 3 utterances", "no longer in the corpus"),
        (f"{shards}/{second}: 3 of 3 utterances", "no longer in the corpus"),
    ]
    files = content(tmp_path)
    assert found(gc(tmp_path)) == expected
    assert content(tmp_path) == files
    assert found(gc(tmp_path, yes=True)) == expected

    entry = Entry(writer.folder)
    assert list(entry.ids) == sorted(kept)
    assert writer.committed() == {id: f"hash of {id}" for id in kept}
    for id, states in kept.items():
        for one in (entry, opened, unread):
            assert same_bits(one[id], states)
        assert entry.checksum(id) == before.checksum(id)
        assert entry.content_hash(id) == before.content_hash(id)
    assert entry.provenance == before.provenance
    now = set(writer.shards())
    assert third in now
    assert not {first, second} & now
    assert all(writer.like(shard) == writer for shard in now)
    age(tmp_path)
    assert gc(tmp_path).garbage == []
    # The other entry holds nothing that is gone from its own manifest.
    assert set(FeatureCache(tmp_path).open("made-up", "beside").ids) == SHARDS[0].keys()


def test_nothing_leaves_the_corpus_while_somebody_is_at_work(tmp_path: Path) -> None:
    """Their manifest may be still to come; a shard that is young may be of it."""
    writer = make(tmp_path)
    writer.publish(name(tmp_path, ["0a"]))
    age(tmp_path)
    with writer.lease("shard-0"):
        assert found(gc(tmp_path)) == []
    shard = path_of(writer) / "shards" / writer.shards()[1] / "zarr.json"
    shard.touch()
    assert [what.partition("/shards/")[2][:5] for what, _ in found(gc(tmp_path))] == [
        "00000",
        "00002",
    ]


@pytest.mark.parametrize("manifest", ["lost", "damaged", "none"])
def test_without_a_manifest_nothing_has_left_the_corpus(tmp_path: Path, manifest: str) -> None:
    writer = fill(tmp_path, SHARDS, publish=False)
    writer.publish("" if manifest == "none" else name(tmp_path, ["0a"]))
    for file in tmp_path.glob("made-up/corpus-*"):
        file.unlink() if manifest == "lost" else file.write_bytes(b"no")
    leave_alone(tmp_path, writer)


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_what_is_damaged_is_never_written_again_as_if_it_were_whole(
    tmp_path: Path, store: str, compression: str
) -> None:
    writer = make(tmp_path, store, compression)
    writer.publish(name(tmp_path, ARRAYS.keys() - {"1a"}))
    shard = path_of(writer) / "shards" / writer.shards()[1]
    file = shard if shard.is_file() else shard / "hidden_states/c/0/0/0"
    damage(file, SHARDS[1]["1c"])
    age(tmp_path)
    before = content(tmp_path)
    with pytest.raises(CacheError) as raised:
        gc(tmp_path, yes=True)
    assert shard.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert content(tmp_path) == before


def damage(file: Path, states: Array) -> None:
    """Change one number, wherever it can be found, or else any byte of the file's middle."""
    data = bytearray(file.read_bytes())
    wanted = states[-1].tobytes()
    at = data.find(wanted)
    for position in [at + 2] if at > 0 else range(len(data) // 4, len(data) // 2):
        data[position] ^= 1
    file.write_bytes(data)


# Old readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(("store", "compression"), FORMS)
@pytest.mark.parametrize("to", ["zarr", "hdf5"])
def test_who_opened_before_reads_on(
    tmp_path: Path, store: str, compression: str, to: str, read_before: bool
) -> None:
    writer = make(tmp_path, store, compression)
    reader = Entry(writer.folder)
    assert len(reader) == len(ARRAYS)
    if read_before:
        assert all(same_bits(reader[id], states) for id, states in ARRAYS.items())
    convert(Entry(writer.folder), to, "none" if compression != "none" else "zstd")
    collect(FeatureCache(tmp_path), yes=True, young=0)
    assert len(writer.shards()) == len(SHARDS)
    for id, states in ARRAYS.items():
        assert same_bits(reader[id], states)
        assert all(same_bits(a, states[[0, 2]]) for a in reader.read([id], [0, 2]))


def test_who_opened_before_is_told_what_is_no_longer_there(tmp_path: Path) -> None:
    writer = make(tmp_path, "zarr", "zstd")
    reader = Entry(writer.folder)
    assert same_bits(reader["0a"], ARRAYS["0a"])
    assert same_bits(reader["0b"], ARRAYS["0b"])
    writer.publish(name(tmp_path, ARRAYS.keys() - {"0a"}))
    collect(FeatureCache(tmp_path), yes=True, young=0)
    with pytest.raises(CacheError) as raised:
        reader["0a"]
    assert "\n" not in str(raised.value)
    assert same_bits(reader["0b"], ARRAYS["0b"])


def test_only_the_places_of_the_cache_are_looked_into(tmp_path: Path) -> None:
    """A symbolic link may lead anywhere."""
    writer = make(tmp_path / "cache")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".tmp-not-ours").write_text("precious")
    (tmp_path / "cache" / ".tmp-link").symlink_to(outside)
    age(tmp_path)
    collect(FeatureCache(tmp_path / "cache"), yes=True)
    assert (outside / ".tmp-not-ours").read_text() == "precious"
    assert not (tmp_path / "cache" / ".tmp-link").is_symlink()
    assert Entry(writer.folder).ids
