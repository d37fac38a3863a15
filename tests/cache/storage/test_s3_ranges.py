"""obstore reads ranges as s3fs is told to; the same bytes come from s3fs where it cannot."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mser.cache import CacheError, FeatureCache
from mser.tests.support.cache_entries import same_bits
from mser.tests.support.object_caches import LAYERS, large, sentence, write
from mser.tests.support.object_store import BUCKET, Asked, ObjectStore


def to_obstore(answer: str) -> Callable[[Asked], str | None]:
    """A fault that s3fs does not meet."""
    return lambda asked: answer if asked.by_obstore else None


def data(store: ObjectStore) -> list[Asked]:
    """The requests for features."""
    return [asked for asked in store.asked if asked.path.endswith("c/0/0/0") and asked.range]


def test_obstore_reads_the_ranges_and_s3fs_does_everything_else(store: ObjectStore) -> None:
    write(store, {"a": large(1), "b": large(2)})
    assert same_bits(store.cache().open("made-up")["a"], large(1))
    assert len(data(store)) == LAYERS + 1  # and the position of the layers
    assert all(asked.by_obstore == (asked in data(store)) for asked in store.asked)


@pytest.mark.usefixtures("no_obstore")
def test_without_obstore_s3fs_reads_all(store: ObjectStore) -> None:
    write(store, {"a": large(1), "b": large(2)})
    assert same_bits(store.cache().open("made-up")["a"], large(1))
    assert len(data(store)) == LAYERS + 1
    assert not any(asked.by_obstore for asked in store.asked)


def test_a_store_that_refuses_obstore_is_read_by_s3fs_alone(store: ObjectStore) -> None:
    write(store, {"a": large(1), "b": large(2)})
    entry = store.cache().open("made-up")
    store.forget()
    with store.failing(to_obstore("403 AccessDenied")):
        assert same_bits(entry["a"], large(1))
        assert any(asked.by_obstore for asked in store.asked)
        store.forget()
        assert same_bits(entry["b"], large(2))
    assert not any(asked.by_obstore for asked in store.asked)


def test_an_error_after_an_answer_is_solved_by_s3fs_once(store: ObjectStore) -> None:
    write(store, {"a": large(1), "b": large(2)})
    entry = store.cache().open("made-up")
    assert same_bits(entry["a"], large(1))
    with store.failing(to_obstore("403 AccessDenied")):
        assert same_bits(entry["a"], large(1))
    store.forget()
    assert same_bits(entry["b"], large(2))
    assert all(asked.by_obstore for asked in data(store))


def test_an_error_of_both_is_that_of_s3fs(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    _ = entry["a"]
    with store.failing(lambda _: "403 AccessDenied"), pytest.raises(CacheError) as raised:
        _ = entry["a"]
    sentence(raised, "cannot read", "PermissionError: injected AccessDenied")


def read_in_child(entry: Any) -> None:
    assert same_bits(entry["a"], large(1))


def test_a_process_forked_after_a_read_by_obstore_reads_by_s3fs(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    assert same_bits(entry["a"], large(1))
    store.forget()
    child = multiprocessing.get_context("fork").Process(target=read_in_child, args=(entry,))
    child.start()
    child.join(60)
    child.kill()  # a read by obstore never ends there
    assert child.exitcode == 0
    assert len(data(store)) == LAYERS
    assert not any(asked.by_obstore for asked in store.asked)
    store.forget()
    assert same_bits(entry["a"], large(1))
    assert all(asked.by_obstore for asked in data(store))


# What s3fs is told, obstore is told ---------------------------------------------------------------


def signers(store: ObjectStore, options: dict[str, Any]) -> set[str]:
    """The keys that signed the requests of obstore for the features; "" is no signature."""
    write(store, {"a": large(1)})
    store.fs.chmod(BUCKET, "public-read", recursive=True)
    store.forget()
    cache = FeatureCache(store.root, {**store.options, **options})
    assert same_bits(cache.open("made-up")["a"], large(1))
    assert all(asked.by_obstore for asked in data(store))
    signatures = [asked.authorization for asked in data(store)]
    return {one.partition("Credential=")[2].partition("/")[0] for one in signatures}


def test_obstore_signs_with_the_key_of_the_environment(store: ObjectStore) -> None:
    assert signers(store, {}) == {"test"}


def test_obstore_signs_with_the_key_of_the_options(store: ObjectStore) -> None:
    assert signers(store, {"key": "mine", "secret": "x"}) == {"mine"}


def test_obstore_signs_with_the_key_of_a_profile(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = of-the-lab\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert signers(store, {"profile": "lab"}) == {"of-the-lab"}


def test_obstore_does_not_sign_for_a_public_bucket(store: ObjectStore) -> None:
    assert signers(store, {"anon": True}) == {""}
