"""Leases on an object store, and object stores that cannot be reached."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mser.cache import CacheError, FeatureCache, collect_garbage, listing
from mser.cache.storage import leases
from mser.tests.support.cache_entries import array, spec
from mser.tests.support.object_caches import features, fill_store, sentence
from mser.tests.support.object_store import Asked, ObjectStore

# Leases -------------------------------------------------------------------------------------------


def test_one_of_many_creates_a_file(store: ObjectStore) -> None:
    folder = store.cache().root / "leases"
    start = threading.Barrier(8)

    def create(who: int) -> bool:
        start.wait()
        return folder.create("one.json", f"{who}".encode())

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert folder.read("one.json") == f"{created.index(True)}".encode()


def test_a_created_file_is_ours_if_only_the_answer_was_lost(store: ObjectStore) -> None:
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
def test_every_answer_for_an_existing_file_is_understood(store: ObjectStore, answer: str) -> None:
    store.cache().root.write("one.json", b"theirs")
    with store.failing(lambda asked: answer if asked.method == "PUT" else None):
        assert not store.cache().root.create("one.json", b"ours")
        assert not store.cache().root.create("two.json", b"ours")
    assert store.cache().root.create("two.json", b"ours")


def test_a_lease_has_one_holder_and_is_released(store: ObjectStore) -> None:
    one, other = (store.cache().writer(spec(), {}) for _ in range(2))
    with one.lease("shard-1") as acquired, other.lease("shard-1") as theirs:
        assert (acquired, theirs) == (True, False)
        with other.lease("shard-2") as another:
            assert another
    assert (one.folder / "leases").names() == []
    with other.lease("shard-1") as acquired:
        assert acquired


def test_the_lease_of_a_dead_holder_is_taken_over(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.cache().writer(spec(), {})
    dead = {"host": "elsewhere", "process": 1, "since": 0.0, "beat": time.time()}
    (writer.folder / "leases").write("shard-1.0000.json", json.dumps(dead).encode())
    with writer.lease("shard-1") as acquired:
        assert not acquired
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.0)
    with writer.lease("shard-1") as acquired:
        assert acquired
        assert "shard-1.0001.json" in (writer.folder / "leases").names()
    assert (writer.folder / "leases").names() == []


# Unreachable stores -------------------------------------------------------------------------------


def tries(cache: FeatureCache) -> list[Callable[[], object]]:
    return [
        lambda: cache.open("made-up"),
        lambda: listing(cache),
        lambda: collect_garbage(cache),
        lambda: cache.writer(spec(), {}).write_shard(0, features({"a": array(1)})),
        lambda: cache.writer(spec(), {}).publish(),
        lambda: cache.writer(spec(), {}).lease("work").__enter__(),
    ]


def refused(cache: FeatureCache, *parts: str) -> None:
    for attempt in tries(cache):
        with pytest.raises(CacheError) as raised:
            attempt()
        sentence(raised, str(cache.root), *parts)


def test_a_missing_bucket_is_an_error(store: ObjectStore) -> None:
    refused(FeatureCache("s3://no-such-bucket/x", store.options), "bucket does not exist")


def test_an_unreachable_server_is_an_error(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    nobody = {"endpoint_url": "http://127.0.0.1:9"}
    refused(FeatureCache(store.root, nobody), "Could not connect", "http://127.0.0.1:9")


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_refused_credentials_are_an_error(store: ObjectStore, code: str) -> None:
    fill_store(store, {"a": array(1)})
    with store.failing(lambda _: f"403 {code}"):
        refused(store.cache(), "PermissionError")


def test_missing_credentials_are_an_error(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    options = {**store.options, "use_ssl": False}  # a client that has not asked for them yet
    refused(FeatureCache(store.root, options), "Unable to locate credentials")


def test_an_empty_cache(store: ObjectStore) -> None:
    assert store.cache().datasets() == []
    assert str(listing(store.cache())).startswith(store.root)
    assert collect_garbage(store.cache()).garbage == []
    with pytest.raises(CacheError, match="holds no features of made-up: run 'mser extract'"):
        store.cache().open("made-up")
