"""The methods to read features that are compared: mser, other libraries, and a memory map.

Each method writes the same float16 features, (layers, frames, dim), as users of its library would,
and reads the utterances of a batch. Several methods may read the same files.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy
import torch
import zarr
from safetensors import safe_open

from mser.benchmarks.synthetic_features import (
    DATASET,
    DIM,
    DTYPE,
    FRAME_BYTES,
    LAYERS,
    Array,
    UtteranceLayout,
    draw_shards,
    make_entry,
)
from mser.cache import Entry, FeatureCache

MEMORY_MAP, MSER = "memory map", "mser, Zarr, 32 at once"
REQUESTED = "pread, requested ahead"
"""No library: what mser's files allow where they are not in memory."""


@dataclass(frozen=True)
class OpenStore:
    """An open store of features."""

    get: Callable[[list[int], slice], Iterable[Array]]
    """Returns these layers of the utterances at these positions."""
    returns_copies: bool
    """True if ``get`` returns copies in private memory, False if views of shared memory."""


@dataclass(frozen=True)
class ReadMethod:
    """How a store is written into a folder, and how it is opened."""

    store: str
    """The name of the store's folder; methods with one name share the files."""
    write: Callable[[Path, UtteranceLayout], None]
    open: Callable[[Path, UtteranceLayout], OpenStore]


def is_single_layer(layers: slice) -> bool:
    return layers.stop is not None


def utterance_states(layout: UtteranceLayout) -> Iterable[Array]:
    """Yield the hidden states of each utterance."""
    return (utterance.hidden_states for shard in draw_shards(layout) for utterance in shard)


def shard_states(layout: UtteranceLayout) -> Iterable[Array]:
    """Yield the hidden states of each shard, its utterances one after another."""
    for shard in draw_shards(layout):
        yield np.concatenate([utterance.hidden_states for utterance in shard], axis=1)


# mser, and other readers of mser's files.


def write_entry(store: str, folder: Path, layout: UtteranceLayout) -> None:
    make_entry(folder, draw_shards(layout), store=store)


def open_entry(batched: bool, folder: Path, layout: UtteranceLayout) -> OpenStore:
    return entry_store(FeatureCache(folder).open(DATASET), layout, batched)


def entry_store(
    entry: Entry, layout: UtteranceLayout, batched: bool = True, returns_copies: bool = False
) -> OpenStore:
    """Read with ``Entry.read``, the whole batch at once or one utterance at a time."""
    ids = layout.ids

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        wanted = [layers.start] if is_single_layer(layers) else None
        if batched:
            return entry.read([ids[index] for index in batch], wanted)
        return (entry.read([ids[index]], wanted)[0] for index in batch)

    return OpenStore(get, returns_copies)


def slice_store(arrays: list[Any], layout: UtteranceLayout, returns_copies: bool) -> OpenStore:
    """Read slices of arrays that are kept open, one array per shard."""
    stops = [start + n for start, n in zip(layout.starts, layout.frames, strict=True)]
    shards, starts = layout.shards, layout.starts

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (arrays[shards[index]][layers, starts[index] : stops[index]] for index in batch)

    return OpenStore(get, returns_copies)


def shard_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/shards/*"))


def open_memory_map(folder: Path, layout: UtteranceLayout) -> OpenStore:
    """Map the bytes of the shards once: no id is looked up, nothing is checked."""
    frames = np.bincount(layout.shards, layout.frames).astype(int)
    maps = [
        np.memmap(path / "hidden_states/c/0/0/0", DTYPE, "r", shape=(LAYERS, int(n), DIM))
        for path, n in zip(shard_paths(folder), frames, strict=True)
    ]
    return slice_store([np.asarray(mapped) for mapped in maps], layout, returns_copies=False)


def open_requested(folder: Path, layout: UtteranceLayout) -> OpenStore:
    """Ask the kernel for all pieces of a batch, then read each by one call."""
    totals = np.bincount(layout.shards, layout.frames).astype(int)
    paths = [path / "hidden_states/c/0/0/0" for path in shard_paths(folder)]
    files = [os.open(path, os.O_RDONLY) for path in paths]

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        pieces = []
        for index in batch:
            shard, frames = layout.shards[index], layout.frames[index]
            first = layout.starts[index] + totals[shard] * np.arange(LAYERS)[layers]
            starts = (first * FRAME_BYTES).tolist()
            pieces.append((files[shard], starts, frames))
            for start in starts if hasattr(os, "posix_fadvise") else ():
                length = frames * FRAME_BYTES
                os.posix_fadvise(files[shard], start, length, os.POSIX_FADV_WILLNEED)
        for file, starts, frames in pieces:
            states = np.empty((len(starts), frames, DIM), DTYPE)
            for layer, start in zip(states, starts, strict=True):
                os.preadv(file, [layer.data], start)
            yield states

    return OpenStore(get, returns_copies=True)


def open_h5py(folder: Path, layout: UtteranceLayout) -> OpenStore:
    files = [h5py.File(path, "r", locking=False) for path in shard_paths(folder)]
    return slice_store([file["hidden_states"] for file in files], layout, returns_copies=True)


def open_zarr(folder: Path, layout: UtteranceLayout) -> OpenStore:
    groups: list[Any] = [zarr.open_group(path, mode="r") for path in shard_paths(folder)]
    return slice_store([group["hidden_states"] for group in groups], layout, returns_copies=True)


def write_chunks(folder: Path, layout: UtteranceLayout) -> None:
    """Write plain Zarr chunks of 256 frames of one layer, the size zarr-python reads fastest."""
    for number, states in enumerate(shard_states(layout)):
        form: Any = {"shape": states.shape, "dtype": states.dtype, "chunks": (1, 256, DIM)}
        array = zarr.create_array(f"{folder}/{number}.zarr", compressors=None, filters=None, **form)
        array[...] = states


def open_chunks(folder: Path, layout: UtteranceLayout) -> OpenStore:
    count = layout.shards[-1] + 1
    arrays = [zarr.open_array(f"{folder}/{number}.zarr", mode="r") for number in range(count)]
    return slice_store(arrays, layout, returns_copies=True)


# One file per utterance, opened for each read.

Load = Callable[[str, slice], Array]  # takes a path without its suffix, and layers


def write_files(save: Callable[[str, Array], None], folder: Path, layout: UtteranceLayout) -> None:
    for number, states in enumerate(utterance_states(layout)):
        save(f"{folder}/{number}", states)


def open_files(
    load: Load, returns_copies: bool, folder: Path, layout: UtteranceLayout
) -> OpenStore:
    stems = [f"{folder}/{number}" for number in range(len(layout.ids))]

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (load(stems[index], layers) for index in batch)

    return OpenStore(get, returns_copies)


def save_npy(stem: str, states: Array) -> None:
    np.save(f"{stem}.npy", states)


def load_npy(mmap_mode: Any, stem: str, layers: slice) -> Array:
    states: Array = np.load(f"{stem}.npy", mmap_mode=mmap_mode)
    return states[layers]


def save_pt(stem: str, states: Array) -> None:
    torch.save(torch.from_numpy(states), f"{stem}.pt")


def load_pt(mmap: bool, stem: str, layers: slice) -> Array:
    states: Array = torch.load(f"{stem}.pt", mmap=mmap, weights_only=True).numpy()
    return states[layers]


def save_safetensors(stem: str, states: Array) -> None:
    safetensors.numpy.save_file({"hidden_states": states}, f"{stem}.safetensors")


def load_safetensors(stem: str, layers: slice) -> Array:
    # A NumPy array is a copy. A PyTorch tensor would be a view, which is slower for small files.
    with safe_open(f"{stem}.safetensors", "numpy") as file:
        states: Array = file.get_slice("hidden_states")[layers]
    return states


def write_safetensors(folder: Path, layout: UtteranceLayout) -> None:
    """Write one file per shard, with one tensor per utterance."""
    for number, shard in enumerate(draw_shards(layout)):
        states = {utterance.id: utterance.hidden_states for utterance in shard}
        safetensors.numpy.save_file(states, f"{folder}/{number}.safetensors")


def open_safetensors(folder: Path, layout: UtteranceLayout) -> OpenStore:
    # PyTorch tensors are views of a memory map, and faster here than copies as NumPy arrays.
    count = layout.shards[-1] + 1
    files: list[Any] = [
        safe_open(f"{folder}/{number}.safetensors", "pt") for number in range(count)
    ]
    ids, shards = layout.ids, layout.shards

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (files[shards[index]].get_slice(ids[index])[layers].numpy() for index in batch)

    return OpenStore(get, returns_copies=False)


_ZARR, _HDF5 = partial(write_entry, "zarr"), partial(write_entry, "hdf5")
_NPY, _PT = partial(write_files, save_npy), partial(write_files, save_pt)

METHODS = {
    MEMORY_MAP: ReadMethod("zarr", _ZARR, open_memory_map),
    REQUESTED: ReadMethod("zarr", _ZARR, open_requested),
    "mser, Zarr, one at a time": ReadMethod("zarr", _ZARR, partial(open_entry, False)),
    MSER: ReadMethod("zarr", _ZARR, partial(open_entry, True)),
    "mser, HDF5, one at a time": ReadMethod("hdf5", _HDF5, partial(open_entry, False)),
    "mser, HDF5, 32 at once": ReadMethod("hdf5", _HDF5, partial(open_entry, True)),
    "h5py, mser's shards": ReadMethod("hdf5", _HDF5, open_h5py),
    "zarr-python, mser's shards": ReadMethod("zarr", _ZARR, open_zarr),
    "zarr-python, its own chunks": ReadMethod("chunks", write_chunks, open_chunks),
    "safetensors, one file per shard": ReadMethod(
        "safetensors", write_safetensors, open_safetensors
    ),
    "safetensors, one file per utterance": ReadMethod(
        "safetensors-each",
        partial(write_files, save_safetensors),
        partial(open_files, load_safetensors, True),
    ),
    ".npy per utterance, mapped": ReadMethod(
        "npy", _NPY, partial(open_files, partial(load_npy, "r"), False)
    ),
    ".npy per utterance, loaded": ReadMethod(
        "npy", _NPY, partial(open_files, partial(load_npy, None), True)
    ),
    ".pt per utterance, mapped": ReadMethod(
        "pt", _PT, partial(open_files, partial(load_pt, True), False)
    ),
    ".pt per utterance, loaded": ReadMethod(
        "pt", _PT, partial(open_files, partial(load_pt, False), True)
    ),
}
