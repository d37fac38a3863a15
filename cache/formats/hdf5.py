"""A shard as an HDF5 file: one dataset ``hidden_states`` (layers, frames, dim) and the utterances.

Uncompressed, the dataset is contiguous. It is read without the HDF5 library, which only says where
it lies. The file is opened without HDF5's locks, which network file systems refuse, and never kept
open: a killed process leaves nothing behind, and a fork takes nothing along.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numcodecs
import numpy as np

from ..errors import CacheError
from ..storage.folder import Folder
from .arrays import Array, ChunkedArray, Layout, StoredArray, checked_form

SUFFIX = ".h5"
ARRAY = "hidden_states"
ATTRIBUTES = "utterances"
_COMPRESSED_FRAMES = 256
_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "zstd": lambda: hdf5plugin.Zstd(clevel=3),
    "blosc": lambda: hdf5plugin.Blosc(cname="zstd", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
}
_DECODERS = {
    hdf5plugin.Zstd.filter_id: numcodecs.Zstd,
    hdf5plugin.Blosc.filter_id: numcodecs.Blosc,
}


def write(path: Path, states: Array, attributes: Mapping[str, Any], compression: str) -> None:
    """Write a shard as a new file ``path``; ``states`` are (layers, frames, dim)."""
    how: dict[str, Any] = {}
    if compression != "none":
        chunk = (1, min(states.shape[1], _COMPRESSED_FRAMES), states.shape[2])
        how = {"chunks": chunk, "compression": _COMPRESSORS[compression]()}
    # In memory first: where a disk is full, the HDF5 library cannot close its file, and crashes.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        array = file.create_dataset(ARRAY, data=states, track_times=False, **how)
        for axis, label in enumerate(("layer", "frame", "feature")):
            array.dims[axis].label = label
        # One text rather than attributes, which HDF5 keeps below 64 KiB.
        file.create_dataset(ATTRIBUTES, data=json.dumps(attributes), track_times=False)
    path.write_bytes(content.getbuffer())


def read_attributes(shards: Folder, name: str) -> dict[str, Any]:
    """Return what was written as ``attributes``."""
    with _opened(shards, name) as file:
        text = _own(file, ATTRIBUTES, shards, name)
        if text.shape != ():  # which may be of any size, with nothing behind it
            raise ValueError(f"'{ATTRIBUTES}' is no text")
        attributes: dict[str, Any] = json.loads(text[()])
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
        if array.chunks is not None:
            return _chunked(shards, name, array)
        offset = array.id.get_offset()
    if offset is None:
        raise CacheError(f"shard {name} of {shards} is damaged: it has no data")
    layout = Layout(name, offset, shape, dtype)
    if shards.size(name) < offset + layout.bytes:
        raise CacheError(f"shard {name} of {shards} is damaged: its data are cut off")
    return layout.opened(shards)


def _chunked(shards: Folder, name: str, array: Any) -> StoredArray:
    shape, dtype = checked_form(array.shape, array.dtype)
    layers, frames, dim = shape
    one, chunk, width = array.chunks
    created = array.id.get_create_plist()
    filters = [created.get_filter(at)[0] for at in range(created.get_nfilters())]
    if (
        len(filters) != 1
        or filters[0] not in _DECODERS
        or (one, width) != (1, dim)
        or chunk > _COMPRESSED_FRAMES
    ):
        raise CacheError(f"shard {name} of {shards} is stored in a way that mser never writes")
    chunks = -(-frames // chunk)
    if array.id.get_num_chunks() != layers * chunks:
        raise CacheError(f"shard {name} of {shards} is damaged: it has gaps")
    index = np.zeros((layers, chunks, 2), "u8")
    plain = set()

    def note(found: Any) -> None:
        layer, start, _ = found.chunk_offset
        index[layer, start // chunk] = found.byte_offset, found.size
        if found.filter_mask:  # it would not become smaller
            plain.add(found.byte_offset)

    array.id.chunk_iter(note)
    layout = Layout(name, 0, shape, dtype)
    return ChunkedArray(shards, layout, chunk, index, _DECODERS[filters[0]]().decode, plain)


@contextmanager
def _opened(shards: Folder, name: str) -> Iterator[Any]:
    if shards.path is not None:
        if not (shards.path / name).exists():
            raise FileNotFoundError(shards.path / name)
        try:
            file = h5py.File(shards.path / name, "r", locking=False)
        except OSError as error:
            if "locking flag" in str(error):
                raise CacheError(
                    f"shard {name} of {shards} is open in this process with HDF5's locks: open it "
                    "with h5py.File(..., locking=False)"
                ) from error
            raise
        with file:
            yield file
    else:
        with shards.open(name) as content, h5py.File(content, "r") as file:
            yield file


def _own(file: Any, key: str, shards: Folder, name: str) -> Any:
    """Return a dataset whose data lie in the file itself, and nowhere else on this machine."""
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise CacheError(f"shard {name} of {shards} is refused: '{key}' is a link out of the file")
    found = file[key]
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise CacheError(f"shard {name} of {shards} is refused: '{key}' lies outside the file")
    return found
