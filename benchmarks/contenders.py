"""The ways to read utterances that are compared, each with all files in the page cache.

Each loops in the same way over the utterances of a batch, and of each leaves one copy in private
memory: a view is copied into a buffer, what is a fresh copy already stays as it is. It returns the
last one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mser.benchmarks.synthetic import DIM, DTYPE, LAYERS, Array, Utterances
from mser.cache import Entry

Read = Callable[[list[int], slice], Array]  # positions of utterances, and which layers of each


def places(made: Utterances) -> dict[bool, list[Array]]:
    """Where to copy each utterance, if one layer of it or if all; all places share one buffer."""
    buffer = np.zeros(LAYERS * max(made.frames) * DIM, DTYPE)
    return {
        one: [buffer[: layers * n * DIM].reshape(layers, n, DIM) for n in made.frames]
        for one, layers in ((True, 1), (False, LAYERS))
    }


def is_one(layers: slice) -> bool:
    return layers.stop is not None


def slicing(arrays: list[Any], made: Utterances, fresh: bool) -> Read:
    """Slices of arrays that are kept open, one a shard; a ``fresh`` slice is a copy already."""
    into, stops = places(made), [a + n for a, n in zip(made.starts, made.frames, strict=True)]
    shards, starts = made.shards, made.starts

    def read(batch: list[int], layers: slice) -> Array:
        place = into[is_one(layers)]
        for at in batch:
            found = arrays[shards[at]][layers, starts[at] : stops[at]]
            if not fresh:
                np.copyto(place[at], found)
        return found if fresh else place[batch[-1]]

    return read


def entry_read(entry: Entry, made: Utterances, batched: bool = True) -> Read:
    """``Entry.read``, of the whole batch or of one utterance at a time."""
    into, ids = places(made), made.ids

    def read(batch: list[int], layers: slice) -> Array:
        place = into[is_one(layers)]
        wanted = [layers.start] if is_one(layers) else None
        if batched:
            found = entry.read([ids[at] for at in batch], wanted)
            for at, states in zip(batch, found, strict=True):
                np.copyto(place[at], states)
        else:
            for at in batch:
                np.copyto(place[at], entry.read([ids[at]], wanted)[0])
        return place[batch[-1]]

    return read


def npy_files(folder: Path, made: Utterances, mapped: bool) -> Read:
    """``np.load`` of a file an utterance, opened each time; unmapped, it reads all layers."""
    into, files = places(made), [f"{folder}/{at}.npy" for at in range(len(made.ids))]

    def read(batch: list[int], layers: slice) -> Array:
        place = into[is_one(layers)]
        for at in batch:
            if mapped:
                np.copyto(place[at], np.load(files[at], mmap_mode="r")[layers])
            else:
                found = np.load(files[at])[layers]
        return place[batch[-1]] if mapped else found

    return read


def chunked_copy(path: Path, states: Array) -> Any:
    """The same features in plain Zarr chunks, of the size that zarr-python reads fastest."""
    form: Any = {"shape": states.shape, "dtype": states.dtype, "chunks": (1, 256, DIM)}
    copy = zarr.create_array(str(path), compressors=None, filters=None, **form)
    copy[...] = states
    return copy
