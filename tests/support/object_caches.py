"""Caches on an object store, for tests."""

import re

import numpy as np
import pytest

from mser.cache import CacheError, EntryWriter, FeatureCache, UtteranceFeatures
from mser.tests.support.cache_entries import Array, spec
from mser.tests.support.object_store import Asked, ObjectStore

LAYERS, DIM, FRAMES = 6, 256, 300
WIDE = spec(layers=tuple(range(LAYERS)), dim=DIM)


def large(seed: int, frames: int = FRAMES) -> Array:
    """Hidden states that compress a little."""
    return np.random.default_rng(seed).standard_normal((LAYERS, frames, DIM)).astype("float16")


def features(arrays: dict[str, Array]) -> list[UtteranceFeatures]:
    return [UtteranceFeatures(id, f"hash of {id}", states) for id, states in arrays.items()]


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
    """Check that an error is one sentence with these parts."""
    message = str(raised.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert all(part in message for part in parts), message


def shard_file(asked: Asked) -> bool:
    """Whether a request writes the file that completes a Zarr shard."""
    return asked.method == "PUT" and bool(re.search(r"/shards/[^/]+/zarr\.json$", asked.path))
