"""A cache on an object store: the same bits as on a disk, whatever fails on the way there."""

import json
import multiprocessing
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import (
    CacheError,
    Entry,
    EntryWriter,
    FeatureCache,
    Features,
    collect,
    convert,
    leases,
    listing,
    verify,
)
from mser.cache.shard import FORMATS
from mser.tests import object_store
from mser.tests.cache_entries import Array, array, fill, path_of, same_bits, spec
from mser.tests.object_store import Asked, ObjectStore

object_server = object_store.object_server
store = object_store.store

FORMS = [("zarr", "none"), ("zarr", "zstd"), ("zarr", "blosc")]
FORMS += [("hdf5", "none"), ("hdf5", "zstd"), ("hdf5", "blosc")]
FOUR = [("zarr", "none"), ("zarr", "zstd"), ("hdf5", "none"), ("hdf5", "blosc")]
LAYERS, DIM, FRAMES = 6, 256, 300
WIDE = spec(layers=tuple(range(LAYERS)), dim=DIM)


def large(seed: int, frames: int = FRAMES) -> Array:
    """Hidden states that compress a little."""
    return np.random.default_rng(seed).standard_normal((LAYERS, frames, DIM)).astype("float16")


def features(arrays: dict[str, Array]) -> list[Features]:
    return [Features(id, f"hash of {id}", states) for id, states in arrays.items()]


def write(
    store: ObjectStore, arrays: dict[str, Array], form: tuple[str, str] = ("zarr", "none")
) -> EntryWriter:
    """Publish one shard of an entry ``WIDE``."""
    writer = store.cache().writer(WIDE, {"made by": "a test"}, *form)
    writer.write_shard(0, features(arrays))
    writer.publish("0" * 12)
    return writer


def fill_store(store: ObjectStore, arrays: dict[str, Array]) -> EntryWriter:
    """Publish one shard of a small entry."""
    writer = store.cache().writer(spec(), {"made by": "a test"})
    writer.write_shard(0, features(arrays))
    writer.publish("0" * 12)
    return writer


def open_all(cache: FeatureCache) -> dict[str, Array]:
    entry = cache.open("made-up")
    return dict(zip(entry.ids, entry.read(entry.ids), strict=True))


def sentence(raised: pytest.ExceptionInfo[CacheError], *parts: str) -> None:
    """It is one, and says this."""
    said = str(raised.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert all(part in said for part in parts), said


def shard_file(asked: Asked) -> bool:
    """Whether a request writes the file by which a Zarr shard counts."""
    return asked.method == "PUT" and bool(re.search(r"/shards/[^/]+/zarr\.json$", asked.path))


# The same bits ------------------------------------------------------------------------------------


def test_all_formats_hold_the_same_bits_here_and_there(store: ObjectStore, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**16, (3, 600, 4), "uint16")
    arrays = {
        "any bits": bits.view("float16"),  # no compression makes them smaller
        "zeros": np.zeros((3, 300, 4), "float16"),
        "one frame": array(1, 1),
        "Grüße/日本語": array(2, 257),
    }
    checksums = set()
    for form in FORMS:
        for cache in (
            FeatureCache(tmp_path / "-".join(form)),
            FeatureCache(f"{store.root}/{'-'.join(form)}", store.options),
        ):
            writer = cache.writer(spec(), {}, *form)
            writer.write_shard(0, features(arrays))
            writer.quarantine([])
            writer.publish("0" * 12)
            entry = cache.open("made-up", "some/encoder", modality="speech")
            assert list(entry.ids) == sorted(arrays)
            assert all(same_bits(entry[id], states) for id, states in arrays.items())
            read = entry.read(arrays, [2, 0])
            assert all(same_bits(a, b[[2, 0]]) for a, b in zip(read, arrays.values(), strict=True))
            assert not any(one.flags.writeable for one in read)
            assert entry.quarantine == {}
            assert len(entry.provenance) == 1
            checksums.add(tuple(entry.checksum(id) for id in arrays))
    assert len(checksums) == 1


# What is fetched ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_only_the_layers_asked_for_are_fetched(store: ObjectStore, form: tuple[str, str]) -> None:
    arrays = {str(n): large(n) for n in range(8)}
    write(store, arrays, form)
    data = "hidden_states/c/0/0/0" if form[0] == "zarr" else ".h5"
    whole = sum(states.nbytes for states in arrays.values())
    entry = store.cache().open("made-up")
    store.forget()
    assert same_bits(entry["0"], arrays["0"])
    assert store.bytes_of(data) < whole / 2

    store.forget()
    one = arrays["5"][[3]]
    (found,) = entry.read(["5"], [3])
    assert same_bits(found, one)
    assert {(asked.method, asked.path.endswith(data)) for asked in store.asked} <= {("GET", True)}
    assert all(asked.range for asked in store.asked)
    # Of what is compressed, whole chunks of 256 frames.
    most = one.nbytes if form[1] == "none" else 3 * 256 * DIM * 2
    assert store.bytes_of(data) <= most

    store.forget()
    assert entry.read(["5"], [])[0].shape == (0, FRAMES, DIM)
    assert store.bytes_of(data) == 0
    (found,) = entry.read(["2"], [0, -1])
    assert same_bits(found, arrays["2"][[0, -1]])
    assert store.bytes_of(data) <= 2 * most


@pytest.mark.parametrize("form", FOUR)
def test_utterances_are_fetched_in_parallel_and_a_shard_is_opened_once(
    store: ObjectStore, form: tuple[str, str]
) -> None:
    arrays = {str(n): large(n, 20) for n in range(8)}
    write(store, arrays, form)
    entry = store.cache().open("made-up")
    store.forget()
    with store.failing(lambda _: time.sleep(0.1)):
        found = entry.read(arrays, [1])
    assert all(same_bits(a, b[[1]]) for a, b in zip(found, arrays.values(), strict=True))
    assert store.most_at_once > 2
    metadata = [asked for asked in store.asked if asked.path.endswith("hidden_states/zarr.json")]
    assert len([asked for asked in metadata if asked.method == "GET"]) == (form[0] == "zarr")
    assert len([asked for asked in store.asked if asked.method == "HEAD"]) <= 2


# What fails on the way there ----------------------------------------------------------------------


PART = 2**18


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload files in parts of 256 KiB, where S3 wants 5 MiB and s3fs makes 50."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: PART)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 2)


def part_2(answer: str, times: float = float("inf")) -> Callable[[Asked], str | None]:
    """A fault that hits the second part of an upload so many times."""
    left = [times]

    def fault(asked: Asked) -> str | None:
        if asked.part != 2 or not left[0]:
            return None
        left[0] -= 1
        return answer

    return fault


def uploads(store: ObjectStore) -> list[str]:
    found = store.fs.list_multipart_uploads(object_store.BUCKET)
    ours = store.root.removeprefix(f"s3://{object_store.BUCKET}/")
    return [one["Key"] for one in found if one["Key"].startswith(ours)]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("form", "answer"),
    [("zarr", "500 InternalError"), ("zarr", "drop"), ("hdf5", "403 AccessDenied")],
)
def test_an_upload_that_fails_loses_its_shard_alone(
    store: ObjectStore, form: str, answer: str
) -> None:
    writer = write(store, {"a": large(1)}, (form, "none"))
    assert max(asked.part for asked in store.asked) > 2
    reader = store.cache().open("made-up")
    with store.failing(part_2(answer)), pytest.raises(CacheError) as raised:
        writer.write_shard(1, features({"b": large(2)}))
    sentence(raised, "cannot write", f"{writer.folder}/shards/00001-")
    assert writer.committed() == {"a": "hash of a"}
    assert uploads(store) == []
    writer.publish("0" * 12)
    for entry in (reader, store.cache().open("made-up")):
        assert list(entry.ids) == ["a"]
        assert same_bits(entry["a"], large(1))

    writer.write_shard(1, features({"b": large(2)}))
    writer.publish("0" * 12)
    assert {
        id: same_bits(states, large(1 + (id == "b")))
        for id, states in open_all(store.cache()).items()
    } == {"a": True, "b": True}
    assert verify(writer.folder).damage == []


@pytest.mark.usefixtures("small_parts")
def test_what_fails_once_is_done_again(store: ObjectStore) -> None:
    failed: set[tuple[str, str, int]] = set()

    def once(asked: Asked) -> str | None:
        kind = asked.method, re.sub(".*/", "", asked.path), min(asked.part, 3)
        if kind in failed:
            return None
        failed.add(kind)
        return ("500 InternalError", "503 SlowDown", "drop")[len(failed) % 3]

    with store.failing(once):
        write(store, {"a": large(1)})
        assert same_bits(open_all(store.cache())["a"], large(1))
    assert len(failed) > 10


def test_an_answer_that_is_cut_off_is_asked_for_again(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    cut = []

    def once(asked: Asked) -> str | None:
        if asked.range in cut or "c/0/0/0" not in asked.path:
            return None
        cut.append(asked.range)
        return "cut"

    with store.failing(once):
        assert same_bits(entry["a"], large(1))
    assert len(cut) > LAYERS


@pytest.mark.parametrize("form", FOUR)
def test_a_shard_that_cannot_be_read_is_named(store: ObjectStore, form: tuple[str, str]) -> None:
    writer = write(store, {"a": large(1)}, form)
    entry = store.cache().open("made-up")
    _ = entry["a"]
    (name,) = writer.shards()
    with store.failing(lambda _: "403 AccessDenied"), pytest.raises(CacheError) as raised:
        _ = entry["a"]
    sentence(raised, "cannot read", name)
    assert same_bits(entry["a"], large(1))


def test_a_shard_of_which_a_file_is_missing_does_not_count(store: ObjectStore) -> None:
    writer = write(store, {"a": large(1)})

    def refuse(asked: Asked) -> str | None:
        return "403 AccessDenied" if shard_file(asked) else None

    with store.failing(refuse), pytest.raises(CacheError) as raised:
        writer.write_shard(1, features({"b": large(2)}))
    sentence(raised, "cannot write", "/shards/00001-")
    assert writer.committed() == {"a": "hash of a"}
    left = store.fs.glob(f"{writer.folder}/shards/00001-*/hidden_states/c/0/0/0")
    assert len(left) == 1

    assert collect(store.cache(), yes=True).garbage == []  # it may be at work
    (garbage,) = collect(store.cache(), young=0).garbage
    assert garbage.what.startswith(f"{writer.folder}/shards/00001-")
    assert garbage.reason == "a shard that was never finished"
    assert garbage.bytes > large(2).nbytes
    assert store.fs.exists(left[0])
    writer.write_shard(1, features({"b": large(2)}))
    collect(store.cache(), young=0, yes=True)
    assert not store.fs.exists(left[0])
    writer.publish("0" * 12)
    assert sorted(open_all(store.cache())) == ["a", "b"]


@pytest.mark.parametrize("name", [r"index-.*\.parquet", r"entry\.json"])
def test_a_publication_that_fails_changes_nothing(store: ObjectStore, name: str) -> None:
    writer = fill_store(store, {"a": array(1)})
    writer.write_shard(1, features({"b": array(2)}))

    def refuse(asked: Asked) -> str | None:
        hit = asked.method == "PUT" and re.search(f"/{name}$", asked.path)
        return "403 AccessDenied" if hit else None

    with store.failing(refuse), pytest.raises(CacheError) as raised:
        writer.publish("1" * 12)
    sentence(raised, "cannot write")
    entry = store.cache().open("made-up")
    assert (list(entry.ids), entry.manifest) == (["a"], "0" * 12)
    writer.publish("1" * 12)
    assert sorted(open_all(store.cache())) == ["a", "b"]


WRITES = """
import json, sys
import numpy as np
import s3fs.core
from mser.cache import EntrySpec, FeatureCache, Features

root, options, fields = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
spec = EntrySpec(**{**fields, "layers": tuple(fields["layers"])})
cache = FeatureCache(root, options)
s3fs.core.calculate_chunksize = lambda *_, **__: 2**18
writer = cache.writer(spec, {})
ones = np.ones((len(spec.layers), 300, spec.dim), "float16")
with writer.lease("shard-1") as held:
    for number, id in enumerate("abc"):
        if id not in writer.committed():
            writer.write_shard(number, [Features(id, "hash", ones + number)])
writer.publish("0" * 12)
print(held)
"""


def command(store: ObjectStore) -> list[str]:
    arguments = (store.root, json.dumps(store.options), json.dumps(asdict(WIDE)))
    return [sys.executable, "-c", WRITES, *arguments]


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_is_killed_in_an_upload_goes_on_where_it_was(store: ObjectStore) -> None:
    third_parts: list[Asked] = []
    over = threading.Event()

    def stall(asked: Asked) -> None:
        if asked.part == 3:
            third_parts.append(asked)
            if len(third_parts) == 2:
                over.wait(60)

    def halfway() -> bool:
        second = third_parts[1].path if third_parts[1:] else None
        return any(one.path == second and one.part == 1 and one.status for one in store.asked)

    with store.failing(stall):
        process = subprocess.Popen(command(store))
        try:
            while not halfway():
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.kill()
            over.set()
        assert process.wait() == -signal.SIGKILL

    writer = store.cache().existing(WIDE)
    assert writer.committed() == {"a": "hash"}
    assert store.cache().entries("made-up") == []
    (left,) = uploads(store)
    assert "/shards/00001-" in left

    done = subprocess.run(command(store), capture_output=True, text=True, check=False, timeout=60)
    # The lease of a process that is dead holds nobody up.
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    assert [one[0, 0, 0] for one in open_all(store.cache()).values()] == [1, 2, 3]
    assert (writer.folder / "leases").names() == []

    assert collect(store.cache(), yes=True).garbage == []  # it may be at work
    (garbage,) = collect(store.cache(), young=0).garbage
    assert garbage.what == f"s3://{object_store.BUCKET}/{left}"
    assert garbage.reason == "an upload that was never finished"
    assert garbage.bytes >= PART
    assert uploads(store) == [left]
    collect(store.cache(), young=0, yes=True)
    assert uploads(store) == []


def test_writers_that_publish_at_once_lose_nothing(store: ObjectStore) -> None:
    start = threading.Barrier(2)

    def publish(who: str) -> None:
        writer = store.cache().writer(spec(), {})
        start.wait()
        for number in range(3):
            writer.write_shard(number, features({f"{who}{number}": array(number)}))
            writer.publish("0" * 12)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(publish, "xy"))
    found = open_all(store.cache())
    assert sorted(found) == sorted(f"{who}{number}" for who in "xy" for number in range(3))
    assert all(same_bits(states, array(int(id[1:]))) for id, states in found.items())


# Leases -------------------------------------------------------------------------------------------


def test_of_many_who_create_a_file_one_succeeds(store: ObjectStore) -> None:
    folder = store.cache().root / "leases"
    start = threading.Barrier(8)

    def create(who: int) -> bool:
        start.wait()
        return folder.create("one.json", f"{who}".encode())

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert folder.read("one.json") == f"{created.index(True)}".encode()


def test_a_file_is_ours_if_only_the_answer_was_lost(store: ObjectStore) -> None:
    lost: list[Asked] = []

    def once(asked: Asked) -> str | None:
        if asked.method != "PUT" or lost:
            return None
        lost.append(asked)
        return "lose"

    with store.failing(once):
        assert store.cache().root.create("one.json", b"ours")
    assert lost
    assert store.cache().root.read("one.json") == b"ours"


@pytest.mark.parametrize("answer", ["412 PreconditionFailed", "409 ConditionalRequestConflict"])
def test_stores_say_in_several_ways_that_a_file_is_there(store: ObjectStore, answer: str) -> None:
    store.cache().root.write("one.json", b"theirs")
    with store.failing(lambda asked: answer if asked.method == "PUT" else None):
        assert not store.cache().root.create("one.json", b"ours")
        assert not store.cache().root.create("two.json", b"ours")
    assert store.cache().root.create("two.json", b"ours")


def test_a_lease_is_held_by_one_and_given_back(store: ObjectStore) -> None:
    one, other = (store.cache().writer(spec(), {}) for _ in range(2))
    with one.lease("shard-1") as held, other.lease("shard-1") as theirs:
        assert (held, theirs) == (True, False)
        with other.lease("shard-2") as another:
            assert another
    assert (one.folder / "leases").names() == []
    with other.lease("shard-1") as held:
        assert held


def test_the_lease_of_a_dead_holder_is_taken_over(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.cache().writer(spec(), {})
    dead = {"host": "elsewhere", "process": 1, "since": 0.0, "beat": time.time()}
    (writer.folder / "leases").write("shard-1.0000.json", json.dumps(dead).encode())
    with writer.lease("shard-1") as held:
        assert not held
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.0)
    with writer.lease("shard-1") as held:
        assert held
        assert "shard-1.0001.json" in (writer.folder / "leases").names()
    assert (writer.folder / "leases").names() == []


# Other processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "form"),
    [("fork", ("zarr", "none")), ("fork", ("hdf5", "blosc")), ("spawn", ("zarr", "blosc"))],
)
def test_workers_of_a_data_loader_read_an_entry(
    store: ObjectStore, method: str, form: tuple[str, str]
) -> None:
    from torch.utils.data import DataLoader  # noqa: PLC0415 -- seconds to import

    arrays = {str(n): large(n, 4) for n in range(6)}
    write(store, arrays, form)
    entry: Any = store.cache().open("made-up")
    assert same_bits(entry["0"], arrays["0"])  # a connection is open, and must not be shared
    loader: Any = DataLoader(
        entry,
        sampler=[*arrays],
        batch_size=None,
        num_workers=2 if method == "fork" else 1,
        collate_fn=np.array,
        multiprocessing_context=method,
        timeout=60,
    )
    for id, found in zip(arrays, loader, strict=True):
        assert same_bits(found, arrays[id])
    assert same_bits(entry["1"], arrays["1"])


def test_a_fork_opens_connections_of_its_own(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    _ = entry["a"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        theirs = pool.submit(entry.__getitem__, "a")
        for _ in range(5):
            assert same_bits(entry["a"], large(1))
        assert same_bits(theirs.result(60), large(1))


def test_threads_share_an_entry(store: ObjectStore) -> None:
    arrays = {str(n): large(n, 4) for n in range(8)}
    write(store, arrays)
    entry = store.cache().open("made-up")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(entry.__getitem__, arrays))
        for few in pool.map(lambda id: entry.read([id, "0"]), arrays):
            assert same_bits(few[1], arrays["0"])
    assert all(same_bits(a, b) for a, b in zip(found, arrays.values(), strict=True))


def test_an_entry_may_be_pickled(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    _ = entry["a"]
    content = pickle.dumps(entry)
    assert len(content) < 1000
    assert same_bits(pickle.loads(content)["a"], large(1))


# Who cannot get there -----------------------------------------------------------------------------


def tries(cache: FeatureCache) -> list[Callable[[], object]]:
    return [
        lambda: cache.open("made-up"),
        lambda: listing(cache),
        lambda: collect(cache),
        lambda: cache.writer(spec(), {}).write_shard(0, features({"a": array(1)})),
        lambda: cache.writer(spec(), {}).publish(),
        lambda: cache.writer(spec(), {}).lease("work").__enter__(),
    ]


def refused(cache: FeatureCache, *parts: str) -> None:
    for attempt in tries(cache):
        with pytest.raises(CacheError) as raised:
            attempt()
        sentence(raised, str(cache.root), *parts)


def test_a_bucket_that_is_not_there(store: ObjectStore) -> None:
    refused(FeatureCache("s3://no-such-bucket/x", store.options), "bucket does not exist")


def test_a_server_that_is_not_there(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    nobody = {"endpoint_url": "http://127.0.0.1:9"}
    refused(FeatureCache(store.root, nobody), "Could not connect", "http://127.0.0.1:9")


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_credentials_that_are_refused(store: ObjectStore, code: str) -> None:
    fill_store(store, {"a": array(1)})
    with store.failing(lambda _: f"403 {code}"):
        refused(store.cache(), "PermissionError")


def test_credentials_that_are_missing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    options = {**store.options, "use_ssl": False}  # a client that has not asked for them yet
    refused(FeatureCache(store.root, options), "Unable to locate credentials")


def test_a_cache_that_holds_nothing(store: ObjectStore) -> None:
    assert store.cache().datasets() == []
    assert str(listing(store.cache())).startswith(store.root)
    assert collect(store.cache()).garbage == []
    with pytest.raises(CacheError, match="holds no features of made-up: run 'mser extract'"):
        store.cache().open("made-up")


# Maintenance --------------------------------------------------------------------------------------


def data_object(writer: EntryWriter, shard: str) -> str:
    """The object that holds the numbers of a shard."""
    inside = "" if shard.endswith(".h5") else "/hidden_states/c/0/0/0"
    return f"{writer.folder}/shards/{shard}{inside}"


def flip(store: ObjectStore, name: str, at: int) -> None:
    content = bytearray(store.fs.cat_file(name))
    content[at] ^= 1
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
    # Near the end of the last layer, of which 'c' has the last frames.
    flip(store, name, store.fs.info(name)["size"] - (5000 if form[0] == "zarr" else 9000))
    found = verify(writer.folder, repair=True)
    (damage,) = found.damage
    assert (damage.what, damage.lost, damage.whole) == (shard, ("c",), ("a", "b"))
    assert found.repaired
    assert store.fs.glob(f"{writer.folder}/shards/{shard}*") == []
    assert {
        id: same_bits(states, arrays[id]) for id, states in open_all(store.cache()).items()
    } == {"a": True, "b": True}
    assert verify(writer.folder).damage == []
    assert writer.committed().keys() == {"a", "b"}
    writer.write_shard(0, features({"c": large(3)}))
    writer.publish()
    assert sorted(open_all(store.cache())) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("form", "opened"), [*((form, True) for form in FOUR), *((form, False) for form in FOUR[:2])]
)
def test_features_whose_data_are_deleted_are_missed(
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
    _ = readers[0]["a"], readers[0]["c"]  # of the other, the shards are not yet open

    convert(readers[0], *new)
    after = sorted(set(writer.shards()) - set(before))
    assert len(after) == 2
    assert all(name.endswith(FORMATS[new[0]].SUFFIX) for name in after)
    assert len(collect(store.cache(), young=0).garbage) == 2
    collect(store.cache(), young=0, yes=True)
    assert writer.shards() == after
    for entry in (*readers, store.cache().open("made-up")):
        assert [entry.checksum(id) for id in "abc"] == checksums
        for id, number in zip("abc", (1, 2, 3), strict=True):
            assert same_bits(entry[id], large(number))
    assert verify(writer.folder).damage == []


def test_a_listing_says_what_is_there(store: ObjectStore, tmp_path: Path) -> None:
    arrays = {"a": array(1), "b": array(2)}
    fill_store(store, arrays)
    here = path_of(fill(tmp_path, [arrays]))
    unpublished = store.cache().writer(spec(encoder="other"), {})
    unpublished.write_shard(0, features({"a": array(1)}))
    listed = {one.encoder: one for one in listing(store.cache()).entries}
    assert listed["some/encoder"].utterances == 2
    size = sum(file.stat().st_size for file in here.rglob("*") if file.is_file())
    assert listed["some/encoder"].bytes == pytest.approx(size, abs=50)
    assert "not published yet" in listed[""].error
    assert "some/encoder" in str(listing(store.cache()))


def test_what_is_replaced_is_garbage(store: ObjectStore) -> None:
    writer = fill_store(store, {"a": array(1)})
    (old,) = writer.shards()
    writer.write_shard(0, features({"a": array(2)}))
    writer.publish()
    (garbage,) = collect(store.cache(), young=0).garbage
    assert garbage.what.endswith(old)
    assert garbage.reason == "all of it lies in newer shards"
    collect(store.cache(), young=0, yes=True)
    assert old not in writer.shards()
    assert same_bits(Entry(writer.folder)["a"], array(2))
