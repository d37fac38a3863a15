"""Pooled features: the mean and the standard deviation of each layer over an utterance's frames.

They are an entry of their own beside the entry they come from, so they are verified, listed and
collected like every other entry. They are computed once for all heads, runs and people of a cache.
"""

import getpass
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .entry import Entry
from .errors import CacheError, DamagedError, NotFoundError, UnknownUtteranceError
from .feature_cache import FeatureCache
from .formats.arrays import Array
from .identity import POOLED, EntrySpec
from .shard import UtteranceFeatures

_SHARD_BYTES = 64 * 2**20
_READ = 16  # utterances read at once
_PATIENCE = 3600.0  # seconds, while another process pools the same entry


def pooled_entry(
    cache: FeatureCache, entry: Entry, tick: Callable[[int], object] = lambda count: None
) -> Entry:
    """Return the pooled features of an entry; compute those that are missing or out of date.

    Each utterance of the pooled entry is (layers, 1, 2 · dim) float32: the mean over the frames,
    then the standard deviation (of the population, without a correction). Where the cache cannot be
    written, the pooled entry is in a temporary folder that is deleted when the process ends.

    Args:
        cache: the cache that holds the entry.
        entry: the entry to pool.
        tick: called with the number of utterances that were pooled since the last call.

    Raises:
        DamagedError: a shard of the entry is damaged.
    """
    spec = pooled_spec(entry.spec)
    if current := _current(cache, entry, spec):
        return current
    try:
        return _pool(cache, entry, spec, tick)
    except (DamagedError, NotFoundError, UnknownUtteranceError):
        raise
    except CacheError:  # a shared cache that this user may only read
        return _pool(FeatureCache(_private_folder().name), entry, spec, tick)


def missing_pooled(cache: FeatureCache, entry: Entry) -> int:
    """Return how many utterances of an entry :func:`pooled_entry` would have to pool."""
    return 0 if _current(cache, entry, pooled_spec(entry.spec)) else len(entry)


def pooled_spec(spec: EntrySpec) -> EntrySpec:
    """Return the identity of the pooled features of an entry."""
    identity = {POOLED: "mean and standard deviation", "key": spec.key}
    return EntrySpec(
        spec.dataset, spec.modality, spec.encoder, identity, spec.layers, 2 * spec.dim, "float32"
    )


def mean_and_std(states: Array) -> Array:
    """Return (layers, 1, 2 · dim) float32 of hidden states (layers, frames, dim)."""
    exact = np.asarray(states, dtype=np.float64)
    pooled = np.concatenate([exact.mean(axis=1), exact.std(axis=1)], axis=1)
    return pooled[:, None].astype(np.float32)


def _current(cache: FeatureCache, entry: Entry, spec: EntrySpec) -> Entry | None:
    """Return the pooled entry if it is complete and no utterance has changed since."""
    with suppress(CacheError, FileNotFoundError):
        pooled = Entry(cache.root / spec.folder)
        known = pooled.index.columns("id", "content_hash")
        source = entry.index.columns("id", "checksum")
        if known.rename_columns(source.column_names).equals(source):
            return pooled
        hashes = pooled.index.content_hashes()
        pairs = zip(*(column.to_pylist() for column in source.columns), strict=True)
        if all(hashes.get(id) == checksum for id, checksum in pairs):
            return pooled
    return None


def _pool(
    cache: FeatureCache, entry: Entry, spec: EntrySpec, tick: Callable[[int], object]
) -> Entry:
    writer = cache.writer(spec, _record(entry))
    # A second process waits and finds the work done; without the lease the work is done twice.
    with writer.lease("pool", _PATIENCE):
        if current := _current(cache, entry, spec):
            return current
        index = writer.stored()
        writer, committed = writer.following(index), index.content_hashes()
        wanted = [id for id in entry.ids if committed.get(id) != entry.checksum(id)]
        number = 1 + max((int(name.partition("-")[0]) for name in writer.shards()), default=-1)
        size = max(1, _SHARD_BYTES // spec.bytes_per_frame)
        for first in range(0, len(wanted), size):
            writer.write_shard(number, list(_pooled(entry, wanted[first : first + size], tick)))
            number += 1
        writer.publish(entry.manifest)
    return Entry(writer.folder)


def _pooled(
    entry: Entry, ids: list[str], tick: Callable[[int], object]
) -> Iterator[UtteranceFeatures]:
    for first in range(0, len(ids), _READ):
        some = ids[first : first + _READ]
        for id, states in zip(some, entry.read(some), strict=True):
            # The checksum of what was pooled: an utterance that is extracted again is pooled again.
            yield UtteranceFeatures(id, entry.checksum(id), mean_and_std(states))
        tick(len(some))


def _record(entry: Entry) -> dict[str, Any]:
    user = ""
    with suppress(KeyError, OSError):  # in a container, a user may have a number and no name
        user = getpass.getuser()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": f"pooled from {entry.folder.name}", "started": now, "user": user}


@lru_cache(maxsize=1)
def _private_folder() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="mser-pooled-")
