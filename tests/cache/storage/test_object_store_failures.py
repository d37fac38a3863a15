"""Failed requests to an object store lose nothing."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from mser.cache import CacheError, collect_garbage, verify
from mser.tests.support import object_store
from mser.tests.support.cache_entries import FOUR, array, same_bits, spec
from mser.tests.support.object_caches import (
    LAYERS,
    WIDE,
    features,
    fill_store,
    large,
    open_all,
    sentence,
    shard_file,
    write,
)
from mser.tests.support.object_store import Asked, ObjectStore

# Failed requests ----------------------------------------------------------------------------------


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
def test_a_failed_upload_loses_only_its_shard(store: ObjectStore, form: str, answer: str) -> None:
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
def test_a_request_that_fails_once_is_repeated(store: ObjectStore) -> None:
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


@pytest.mark.usefixtures("both_readers")
def test_a_request_with_a_truncated_answer_is_repeated(store: ObjectStore) -> None:
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

    assert collect_garbage(store.cache(), delete=True).garbage == []  # the writer may be running
    (garbage,) = collect_garbage(store.cache(), minimum_age=0).garbage
    assert garbage.what.startswith(f"{writer.folder}/shards/00001-")
    assert garbage.reason == "a shard that was never finished"
    assert garbage.bytes > large(2).nbytes
    assert store.fs.exists(left[0])
    writer.write_shard(1, features({"b": large(2)}))
    collect_garbage(store.cache(), minimum_age=0, delete=True)
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
from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures

root, options, fields = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
spec = EntrySpec(**{**fields, "layers": tuple(fields["layers"])})
cache = FeatureCache(root, options)
s3fs.core.calculate_chunksize = lambda *_, **__: 2**18
writer = cache.writer(spec, {})
ones = np.ones((len(spec.layers), 300, spec.dim), "float16")
with writer.lease("shard-1") as acquired:
    for number, id in enumerate("abc"):
        if id not in writer.committed():
            writer.write_shard(number, [UtteranceFeatures(id, "hash", ones + number)])
writer.publish("0" * 12)
print(acquired)
"""


def command(store: ObjectStore) -> list[str]:
    arguments = (store.root, json.dumps(store.options), json.dumps(asdict(WIDE)))
    return [sys.executable, "-c", WRITES, *arguments]


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_is_killed_in_an_upload_continues(store: ObjectStore) -> None:
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
    # The lease of the killed process is taken over at once.
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    assert [one[0, 0, 0] for one in open_all(store.cache()).values()] == [1, 2, 3]
    assert (writer.folder / "leases").names() == []

    assert collect_garbage(store.cache(), delete=True).garbage == []  # the writer may be running
    (garbage,) = collect_garbage(store.cache(), minimum_age=0).garbage
    assert garbage.what == f"s3://{object_store.BUCKET}/{left}"
    assert garbage.reason == "an upload that was never finished"
    assert garbage.bytes >= PART
    assert uploads(store) == [left]
    collect_garbage(store.cache(), minimum_age=0, delete=True)
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
