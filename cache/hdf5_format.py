"""A shard as an HDF5 file: one dataset ``hidden_states`` (layers, frames, dim) and the utterances.

Uncompressed, the dataset is contiguous, and is read without the HDF5 library. The file is opened
without HDF5's locks, which network file systems refuse, and never kept open: a killed process
leaves nothing behind, and a fork takes nothing along.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin

from .arrays import Array, DecodedArray, Layout, StoredArray, checked_form
from .errors import CacheError
from .folder import Folder

SUFFIX = ".h5"
ARRAY = "hidden_states"
ATTRIBUTES = "utterances"
_COMPRESSED_FRAMES = 256
_COMPRESSORS = {
    "zstd": lambda: hdf5plugin.Zstd(clevel=3),
    "blosc": lambda: hdf5plugin.Blosc(cname="zstd", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
}
_FILTERS = {hdf5plugin.Zstd.filter_id, hdf5plugin.Blosc.filter_id}


def write(path: Path, states: Array, attributes: Mapping[str, Any], compression: str) -> None:
    """Write a shard as a new file ``path``; ``states`` are (layers, frames, dim)."""
    how: dict[str, Any] = {}
    if compression != "none":
        chunk = (1, min(states.shape[1], _COMPRESSED_FRAMES), states.shape[2])
        how = {"chunks": chunk, "compression": _COMPRESSORS[compression]()}
    with h5py.File(path, "x", locking=False) as file:
        array = file.create_dataset(ARRAY, data=states, track_times=False, **how)
        for axis, label in enumerate(("layer", "frame", "feature")):
            array.dims[axis].label = label
        # One text rather than attributes, which HDF5 keeps below 64 KiB.
        file.create_dataset(ATTRIBUTES, data=json.dumps(attributes), track_times=False)


def read_attributes(shards: Folder, name: str) -> dict[str, Any]:
    """Return what was written as ``attributes``."""
    with _opened(shards, name) as file:
        attributes: dict[str, Any] = json.loads(_own(file, ATTRIBUTES, shards, name)[()])
        return attributes


def open_array(shards: Folder, name: str) -> StoredArray:
    """Return the array of a shard.

    Raises:
        CacheError: the array is not one that mser writes.
        FileNotFoundError, OSError, ValueError, KeyError: the shard is not there, or damaged.
    """
    with _opened(shards, name) as file:
        array = _own(file, ARRAY, shards, name)
        shape, dtype = checked_form(array.shape, array.dtype)
        created = array.id.get_create_plist()
        filters = {created.get_filter(at)[0] for at in range(created.get_nfilters())}
        if not filters <= _FILTERS:
            raise CacheError(f"shard {name} of {shards} has filters that mser never writes")
        offset = array.id.get_offset()
    if filters or offset is None:
        return DecodedArray(lambda: _dataset(shards, name), shape, dtype)
    layout = Layout(name, offset, shape, dtype)
    if shards.size(name) < offset + layout.bytes:
        raise CacheError(f"shard {name} of {shards} is damaged: its data are cut off")
    return layout.opened(shards)


@contextmanager
def _opened(shards: Folder, name: str) -> Iterator[Any]:
    if shards.path is not None:
        if not (shards.path / name).exists():
            raise FileNotFoundError(shards.path / name)
        with h5py.File(shards.path / name, "r", locking=False) as file:
            yield file
    else:
        with shards.open(name) as content, h5py.File(content, "r") as file:
            yield file


@contextmanager
def _dataset(shards: Folder, name: str) -> Iterator[Any]:
    with _opened(shards, name) as file:
        yield _own(file, ARRAY, shards, name)


def _own(file: Any, key: str, shards: Folder, name: str) -> Any:
    """Return a dataset whose data lie in the file itself, and nowhere else on this machine."""
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise CacheError(f"shard {name} of {shards} is refused: '{key}' is a link out of the file")
    found = file[key]
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise CacheError(f"shard {name} of {shards} is refused: '{key}' lies outside the file")
    return found
