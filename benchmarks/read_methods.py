"""The ways to read features that are compared: ours, plain libraries, and the memory map.

Each writes the same float16 features, (layers, frames, dim), as its library's users would, and
reads the utterances of a batch. Several ways may read the same files.
"""

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
    LAYERS,
    Array,
    Utterances,
    draw_shards,
    make_entry,
)
from mser.cache import Entry, FeatureCache

MEMORY_MAP, OURS = "memory map", "mser, Zarr, 32 at once"


@dataclass(frozen=True)
class Way:
    """An open store: ``get`` gives the utterances at these positions, of each these layers.

    What is ``fresh`` is a copy in private memory already, all else is a view of something shared.
    """

    get: Callable[[list[int], slice], Iterable[Array]]
    fresh: bool


@dataclass(frozen=True)
class Contender:
    """How a store is written into a folder, and how it is opened; one name, one way to write."""

    store: str
    write: Callable[[Path, Utterances], None]
    open: Callable[[Path, Utterances], Way]


def is_one(layers: slice) -> bool:
    return layers.stop is not None


def all_states(made: Utterances) -> Iterable[Array]:
    return (one.hidden_states for shard in draw_shards(made) for one in shard)


def shard_states(made: Utterances) -> Iterable[Array]:
    for shard in draw_shards(made):
        yield np.concatenate([one.hidden_states for one in shard], axis=1)


# mser, and others on mser's files.


def write_entry(store: str, folder: Path, made: Utterances) -> None:
    make_entry(folder, draw_shards(made), store=store)


def open_entry(batched: bool, folder: Path, made: Utterances) -> Way:
    return entry_way(FeatureCache(folder).open(DATASET), made, batched)


def entry_way(entry: Entry, made: Utterances, batched: bool = True, fresh: bool = False) -> Way:
    """``Entry.read``, of the whole batch or of one utterance at a time."""
    ids = made.ids

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        wanted = [layers.start] if is_one(layers) else None
        if batched:
            return entry.read([ids[at] for at in batch], wanted)
        return (entry.read([ids[at]], wanted)[0] for at in batch)

    return Way(get, fresh)


def slicing(arrays: list[Any], made: Utterances, fresh: bool) -> Way:
    """Slices of arrays that are kept open, one a shard."""
    stops = [start + n for start, n in zip(made.starts, made.frames, strict=True)]
    shards, starts = made.shards, made.starts

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (arrays[shards[at]][layers, starts[at] : stops[at]] for at in batch)

    return Way(get, fresh)


def shard_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/shards/*"))


def open_map(folder: Path, made: Utterances) -> Way:
    """The bytes of the shards, mapped once: nothing is looked up by id, nothing is checked."""
    frames = np.bincount(made.shards, made.frames).astype(int)
    maps = [
        np.memmap(path / "hidden_states/c/0/0/0", DTYPE, "r", shape=(LAYERS, int(n), DIM))
        for path, n in zip(shard_paths(folder), frames, strict=True)
    ]
    return slicing([np.asarray(one) for one in maps], made, fresh=False)


def open_h5py(folder: Path, made: Utterances) -> Way:
    files = [h5py.File(path, "r", locking=False) for path in shard_paths(folder)]
    return slicing([file["hidden_states"] for file in files], made, fresh=True)


def open_zarr(folder: Path, made: Utterances) -> Way:
    groups: list[Any] = [zarr.open_group(path, mode="r") for path in shard_paths(folder)]
    return slicing([group["hidden_states"] for group in groups], made, fresh=True)


def write_chunks(folder: Path, made: Utterances) -> None:
    """Plain Zarr chunks of 256 frames of one layer, the size that zarr-python reads fastest."""
    for at, states in enumerate(shard_states(made)):
        form: Any = {"shape": states.shape, "dtype": states.dtype, "chunks": (1, 256, DIM)}
        copy = zarr.create_array(f"{folder}/{at}.zarr", compressors=None, filters=None, **form)
        copy[...] = states


def open_chunks(folder: Path, made: Utterances) -> Way:
    arrays = [zarr.open_array(f"{folder}/{at}.zarr", mode="r") for at in range(made.shards[-1] + 1)]
    return slicing(arrays, made, fresh=True)


# A file an utterance, opened each time that it is read.

Load = Callable[[str, slice], Array]  # of a path without its suffix


def write_files(save: Callable[[str, Array], None], folder: Path, made: Utterances) -> None:
    for at, states in enumerate(all_states(made)):
        save(f"{folder}/{at}", states)


def open_files(load: Load, fresh: bool, folder: Path, made: Utterances) -> Way:
    stems = [f"{folder}/{at}" for at in range(len(made.ids))]
    return Way(lambda batch, layers: (load(stems[at], layers) for at in batch), fresh)


def save_npy(stem: str, states: Array) -> None:
    np.save(f"{stem}.npy", states)


def load_npy(mmap_mode: Any, stem: str, layers: slice) -> Array:
    found: Array = np.load(f"{stem}.npy", mmap_mode=mmap_mode)
    return found[layers]


def save_pt(stem: str, states: Array) -> None:
    torch.save(torch.from_numpy(states), f"{stem}.pt")


def load_pt(mmap: bool, stem: str, layers: slice) -> Array:
    found: Array = torch.load(f"{stem}.pt", mmap=mmap, weights_only=True).numpy()
    return found[layers]


def save_safetensors(stem: str, states: Array) -> None:
    safetensors.numpy.save_file({"hidden_states": states}, f"{stem}.safetensors")


def load_safetensors(stem: str, layers: slice) -> Array:
    # As NumPy's: as PyTorch's it is a view, which for a file of one utterance takes longer.
    with safe_open(f"{stem}.safetensors", "numpy") as file:
        found: Array = file.get_slice("hidden_states")[layers]
    return found


def write_safetensors(folder: Path, made: Utterances) -> None:
    """A file a shard, in it a tensor an utterance."""
    for at, shard in enumerate(draw_shards(made)):
        states = {one.id: one.hidden_states for one in shard}
        safetensors.numpy.save_file(states, f"{folder}/{at}.safetensors")


def open_safetensors(folder: Path, made: Utterances) -> Way:
    # As PyTorch's tensors, which are views of a map and so faster here than NumPy's copies.
    count = made.shards[-1] + 1
    files: list[Any] = [safe_open(f"{folder}/{at}.safetensors", "pt") for at in range(count)]
    ids, shards = made.ids, made.shards

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (files[shards[at]].get_slice(ids[at])[layers].numpy() for at in batch)

    return Way(get, fresh=False)


_ZARR, _HDF5 = partial(write_entry, "zarr"), partial(write_entry, "hdf5")
_NPY, _PT = partial(write_files, save_npy), partial(write_files, save_pt)
_ONE = partial(open_files, load_safetensors, True)

CONTENDERS = {
    MEMORY_MAP: Contender("zarr", _ZARR, open_map),
    "mser, Zarr, one at a time": Contender("zarr", _ZARR, partial(open_entry, False)),
    OURS: Contender("zarr", _ZARR, partial(open_entry, True)),
    "mser, HDF5, one at a time": Contender("hdf5", _HDF5, partial(open_entry, False)),
    "mser, HDF5, 32 at once": Contender("hdf5", _HDF5, partial(open_entry, True)),
    "h5py, mser's shards": Contender("hdf5", _HDF5, open_h5py),
    "zarr-python, mser's shards": Contender("zarr", _ZARR, open_zarr),
    "zarr-python, chunks of its own": Contender("chunks", write_chunks, open_chunks),
    "safetensors, a file a shard": Contender("safetensors", write_safetensors, open_safetensors),
    "safetensors, a file an utterance": Contender(
        "safetensors-each", partial(write_files, save_safetensors), _ONE
    ),
    "a .npy an utterance, mapped": Contender(
        "npy", _NPY, partial(open_files, partial(load_npy, "r"), False)
    ),
    "a .npy an utterance, loaded": Contender(
        "npy", _NPY, partial(open_files, partial(load_npy, None), True)
    ),
    "a .pt an utterance, mapped": Contender(
        "pt", _PT, partial(open_files, partial(load_pt, True), False)
    ),
    "a .pt an utterance, loaded": Contender(
        "pt", _PT, partial(open_files, partial(load_pt, False), True)
    ),
}
