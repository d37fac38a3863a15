"""Files that a job may still need are kept, and open entries stay readable."""

import time
from pathlib import Path

import pytest

from mser.cache import CacheError, Entry, FeatureCache, UtteranceFeatures, collect_garbage, convert
from mser.cache.storage.local import LocalFolder
from mser.tests.support.cache_entries import FOUR, Array, array, fill, path_of, same_bits
from mser.tests.support.garbage_caches import (
    ARRAYS,
    DAY,
    SHARDS,
    age,
    check_nothing_is_garbage,
    content,
    garbage_in,
    gc,
    lease_of,
    make,
    name,
    orphan_index,
    orphan_manifest,
    superseded_shard,
)

# Not garbage --------------------------------------------------------------------------------------


def test_an_undamaged_cache_holds_no_garbage(tmp_path: Path) -> None:
    assert (
        str(check_nothing_is_garbage(tmp_path, make(tmp_path))) == f"{tmp_path}: nothing to delete"
    )
    assert gc(tmp_path / "none").garbage == []


def test_leases_of_holders_that_may_be_running_are_kept(tmp_path: Path) -> None:
    writer = make(tmp_path)
    lease_of(writer)
    check_nothing_is_garbage(tmp_path, writer)
    lease_of(writer, host="elsewhere", process=1)
    check_nothing_is_garbage(tmp_path, writer)


def test_a_lease_with_a_fresh_heartbeat_is_kept_whatever_its_clock(tmp_path: Path) -> None:
    writer = make(tmp_path)
    age(tmp_path)
    lease_of(writer, host="elsewhere", beat=0.0)
    assert gc(tmp_path).garbage == []


def test_fresh_files_are_kept_if_the_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(tmp_path)
    age(tmp_path)
    left = path_of(writer) / "shards" / ".tmp-built"
    left.touch()
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + DAY)
    assert gc(tmp_path).garbage == []
    monkeypatch.undo()
    age(tmp_path)
    monkeypatch.setattr(time, "time", lambda: right() - 2 * DAY)
    assert [item.what for item in gc(tmp_path).garbage] == [str(left)]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_shards_that_are_not_published_yet_are_kept(tmp_path: Path, store: str) -> None:
    """A running writer's shards: new utterances, and changed ones beside unchanged ones."""
    writer = make(tmp_path, store)
    writer.write_shard(5, [UtteranceFeatures("new", "hash", array(1))])
    writer.write_shard(6, [UtteranceFeatures("0a", "changed", array(2))])
    writer.write_shard(
        7, [UtteranceFeatures("0b", "hash of 0b", array(1)), UtteranceFeatures("n", "h", array(3))]
    )
    check_nothing_is_garbage(tmp_path, writer)
    writer.publish(name(tmp_path, [*ARRAYS, "new", "n"]))
    entry = Entry(writer.folder)
    assert same_bits(entry["new"], array(1))
    assert same_bits(entry["0a"], array(2))


def test_an_entry_that_was_never_published_is_kept(tmp_path: Path) -> None:
    """A first extraction may take days, and an import writes its manifest first."""
    fill(tmp_path, SHARDS, publish=False)
    name(tmp_path, ARRAYS)
    check_nothing_is_garbage(tmp_path)
    make(tmp_path / "published")
    fill(tmp_path / "published", SHARDS, publish=False, encoder="new", identity={"weights": "new"})
    name(tmp_path / "published", ["of the new one"])
    check_nothing_is_garbage(tmp_path / "published")


def test_files_of_the_user_are_kept(tmp_path: Path) -> None:
    writer = make(tmp_path)
    for folder in (tmp_path, path_of(writer).parent, path_of(writer), path_of(writer) / "shards"):
        for file in ("notes.txt", "corpus-notes.txt", "index-old.parquet", ".DS_Store", "tmp-1"):
            (folder / file).write_text("mine")
        (folder / "experiment").mkdir()
        (folder / "experiment" / "notes.txt").write_text("mine")
        (folder / ".snapshot").mkdir()
        (folder / ".snapshot" / "notes.txt").write_text("mine")
    check_nothing_is_garbage(tmp_path, writer)


@pytest.mark.parametrize("file", ["entry.json", "index-*.parquet"])
def test_nothing_of_a_damaged_entry_is_deleted(tmp_path: Path, file: str) -> None:
    """Its shards and its manifest stay; the garbage of other entries is deleted."""
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
    result = gc(root, delete=True)
    others = {"an index that was replaced", "no longer in the corpus"}
    if file != "entry.json":  # it names the manifest that the entry needs
        others.add("a manifest that was replaced")
    assert {reason for _, reason in garbage_in(result)} == others
    (sentence,) = result.unread
    assert damaged.name in sentence
    assert "\n" not in sentence
    assert f"skipped: {sentence}" in str(result)
    kept = {p: c for p, c in before.items() if path_of(writer) in p.parents}
    kept |= {p: c for p, c in before.items() if p.name == f"corpus-{manifest}.parquet"}
    assert kept.items() <= content(root).items()


def test_a_shard_that_cannot_be_read_at_present_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard is undamaged, and holds the only copy of a running writer's features."""
    writer = make(tmp_path)
    shard = writer.write_shard(5, [UtteranceFeatures("new", "hash", array(1))])

    def failing(self: LocalFolder, name: str, *_: object) -> bytes:
        if shard in name:
            raise CacheError(f"cannot read {self}/{name}: Stale file handle")
        return (self.at / name).read_bytes()

    with monkeypatch.context() as broken:
        broken.setattr(LocalFolder, "read", failing)
        check_nothing_is_garbage(tmp_path, writer)
    writer.publish()
    assert same_bits(Entry(writer.folder)["new"], array(1))


# Utterances outside the corpus --------------------------------------------------------------------


@pytest.mark.parametrize(("store", "compression"), FOUR)
def test_utterances_that_left_the_corpus_are_deleted(
    tmp_path: Path, store: str, compression: str
) -> None:
    writer = make(tmp_path, store, compression)
    removed = {"0b", *SHARDS[1]}
    kept = {id: states for id, states in ARRAYS.items() if id not in removed}
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
    assert garbage_in(gc(tmp_path)) == expected
    assert content(tmp_path) == files
    assert garbage_in(gc(tmp_path, delete=True)) == expected

    entry = Entry(writer.folder)
    assert list(entry.ids) == sorted(kept)
    assert writer.committed() == {id: f"hash of {id}" for id in kept}
    for id, states in kept.items():
        for reader in (entry, opened, unread):
            assert same_bits(reader[id], states)
        assert entry.checksum(id) == before.checksum(id)
        assert entry.content_hash(id) == before.content_hash(id)
    assert entry.provenance == before.provenance
    shards_after = set(writer.shards())
    assert third in shards_after
    assert not {first, second} & shards_after
    assert all(writer.with_form_of(shard) == writer for shard in shards_after)
    age(tmp_path)
    assert gc(tmp_path).garbage == []
    # The other entry's own manifest still lists all its utterances.
    assert set(FeatureCache(tmp_path).open("made-up", "beside").ids) == SHARDS[0].keys()


def test_no_utterance_is_removed_while_a_writer_is_running(tmp_path: Path) -> None:
    """The writer may store its manifest later, and a new shard may belong to that manifest."""
    writer = make(tmp_path)
    writer.publish(name(tmp_path, ["0a"]))
    age(tmp_path)
    with writer.lease("shard-0"):
        assert garbage_in(gc(tmp_path)) == []
    shard = path_of(writer) / "shards" / writer.shards()[1] / "zarr.json"
    shard.touch()
    assert [what.partition("/shards/")[2][:5] for what, _ in garbage_in(gc(tmp_path))] == [
        "00000",
        "00002",
    ]


@pytest.mark.parametrize("manifest", ["lost", "damaged", "none"])
def test_no_utterance_is_removed_without_a_manifest(tmp_path: Path, manifest: str) -> None:
    writer = fill(tmp_path, SHARDS, publish=False)
    writer.publish("" if manifest == "none" else name(tmp_path, ["0a"]))
    for file in tmp_path.glob("made-up/corpus-*"):
        file.unlink() if manifest == "lost" else file.write_bytes(b"no")
    check_nothing_is_garbage(tmp_path, writer)


@pytest.mark.parametrize(("store", "compression"), FOUR)
def test_a_damaged_shard_is_never_written_again_as_undamaged(
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
        gc(tmp_path, delete=True)
    assert shard.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert content(tmp_path) == before


def damage(file: Path, states: Array) -> None:
    """Change one number if the file holds it uncompressed, else bytes in the file's middle."""
    data = bytearray(file.read_bytes())
    wanted = states[-1].tobytes()
    start = data.find(wanted)
    for position in [start + 2] if start > 0 else range(len(data) // 4, len(data) // 2):
        data[position] ^= 1
    file.write_bytes(data)


# Open entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(("store", "compression"), FOUR)
@pytest.mark.parametrize("to", ["zarr", "hdf5"])
def test_an_open_entry_stays_readable(
    tmp_path: Path, store: str, compression: str, to: str, read_before: bool
) -> None:
    writer = make(tmp_path, store, compression)
    reader = Entry(writer.folder)
    assert len(reader) == len(ARRAYS)
    if read_before:
        assert all(same_bits(reader[id], states) for id, states in ARRAYS.items())
    convert(Entry(writer.folder), to, "none" if compression != "none" else "zstd")
    collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=0)
    assert len(writer.shards()) == len(SHARDS)
    for id, states in ARRAYS.items():
        assert same_bits(reader[id], states)
        assert all(same_bits(a, states[[0, 2]]) for a in reader.read([id], [0, 2]))


def test_a_read_of_a_deleted_utterance_is_an_error(tmp_path: Path) -> None:
    writer = make(tmp_path, "zarr", "zstd")
    reader = Entry(writer.folder)
    assert same_bits(reader["0a"], ARRAYS["0a"])
    assert same_bits(reader["0b"], ARRAYS["0b"])
    writer.publish(name(tmp_path, ARRAYS.keys() - {"0a"}))
    collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=0)
    with pytest.raises(CacheError) as raised:
        reader["0a"]
    assert "\n" not in str(raised.value)
    assert same_bits(reader["0b"], ARRAYS["0b"])


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    writer = make(tmp_path / "cache")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".tmp-not-ours").write_text("precious")
    (tmp_path / "cache" / ".tmp-link").symlink_to(outside)
    age(tmp_path)
    collect_garbage(FeatureCache(tmp_path / "cache"), delete=True)
    assert (outside / ".tmp-not-ours").read_text() == "precious"
    assert not (tmp_path / "cache" / ".tmp-link").is_symlink()
    assert Entry(writer.folder).ids
