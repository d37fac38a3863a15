"""A shard as an HDF5 file: one dataset ``hidden_states`` (layers, frames, dim) and the utterances.

Uncompressed, the dataset is contiguous. The HDF5 library only gives its position in the file; the
data are read without the library. The file is opened without HDF5's locks, which network file
systems refuse, and never kept open: a killed process leaves no lock, and a fork inherits no open
file.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from ..errors import CacheError, damaged_shard
from ..storage.folder import Folder
from .arrays import Array, ChunkedArray, Layout, StoredArray, checked_form
from .store_format import (
    ARRAY,
    AXES,
    BLOSC_LEVEL,
    ZSTD_LEVEL,
    StoreFormat,
    chunk_frames,
    decoder,
    is_chunk,
)

_ATTRIBUTES = "utterances"
_COMPRESSIONS = {hdf5plugin.Zstd.filter_id: "zstd", hdf5plugin.Blosc.filter_id: "blosc"}


class Hdf5Format(StoreFormat):
    """HDF5, one file per shard."""

    suffix = ".h5"

    def write(
        self, path: Path, states: Array, attributes: Mapping[str, Any], compression: str
    ) -> None:
        options: dict[str, Any] = {}
        if compression != "none":
            _, frames, dim = states.shape
            chunk = (1, chunk_frames(frames, compression), dim)
            options = {"chunks": chunk, "compression": _compressor(compression)}
        # In memory first: where a disk is full, the HDF5 library cannot close its file and crashes.
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            array = file.create_dataset(ARRAY, data=states, track_times=False, **options)
            for axis, label in enumerate(AXES):
                array.dims[axis].label = label
            # One text instead of HDF5 attributes, which are limited to 64 KiB.
            file.create_dataset(_ATTRIBUTES, data=json.dumps(attributes), track_times=False)
        path.write_bytes(content.getbuffer())

    def read_attributes(self, shards: Folder, name: str) -> dict[str, Any]:
        with _opened(shards, name) as file:
            text = _dataset(file, _ATTRIBUTES, shards, name)
            if text.shape != ():  # an array may claim any size without holding any data
                raise ValueError(f"'{_ATTRIBUTES}' is not a text")
            attributes: dict[str, Any] = json.loads(text[()])
            return attributes

    def open_array(self, shards: Folder, name: str) -> StoredArray:
        with _opened(shards, name) as file:
            array = _dataset(file, ARRAY, shards, name)
            shape, dtype = checked_form(array.shape, array.dtype)
            if array.chunks is not None:
                return _chunked(shards, array, Layout(name, 0, shape, dtype))
            offset = array.id.get_offset()
        if offset is None:
            raise damaged_shard(shards, name, "it has no data")
        layout = Layout(name, offset, shape, dtype)
        if shards.size(name) < offset + layout.bytes:
            raise damaged_shard(shards, name, "its data are cut off")
        return layout.opened(shards)


def _compressor(compression: str) -> Any:
    if compression == "zstd":
        return hdf5plugin.Zstd(clevel=ZSTD_LEVEL)
    shuffle = hdf5plugin.Blosc.BITSHUFFLE
    return hdf5plugin.Blosc(cname="zstd", clevel=BLOSC_LEVEL, shuffle=shuffle)


def _chunked(shards: Folder, array: Any, layout: Layout) -> StoredArray:
    layers, frames, dim = layout.shape
    created = array.id.get_create_plist()
    filters = [created.get_filter(number)[0] for number in range(created.get_nfilters())]
    compressions = [_COMPRESSIONS.get(filter_id, "") for filter_id in filters]
    if compressions not in (["zstd"], ["blosc"]) or not is_chunk(
        array.chunks, frames, dim, compressions[0]
    ):
        raise damaged_shard(shards, layout.file, "mser does not write such filters or chunks")
    length = array.chunks[1]
    chunks = -(-frames // length)
    if array.id.get_num_chunks() != layers * chunks:
        raise damaged_shard(shards, layout.file, "it has gaps")
    index = np.zeros((layers, chunks, 2), "u8")
    uncompressed = set()

    def add(chunk: Any) -> None:
        layer, start, _ = chunk.chunk_offset
        index[layer, start // length] = chunk.byte_offset, chunk.size
        if chunk.filter_mask:  # compression would not have made it smaller
            uncompressed.add(chunk.byte_offset)

    array.id.chunk_iter(add)
    return ChunkedArray(shards, layout, length, index, decoder(compressions[0]), uncompressed)


@contextmanager
def _opened(shards: Folder, name: str) -> Iterator[Any]:
    if shards.path is not None:
        if not (shards.path / name).exists():
            raise FileNotFoundError(shards.path / name)
        if shards.has_link(name):
            raise damaged_shard(shards, name, "it is a symbolic link")
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


def _dataset(file: Any, key: str, shards: Folder, name: str) -> Any:
    """Return a dataset whose data are in the file itself, and in no other file of this machine."""
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise damaged_shard(shards, name, f"'{key}' is a link to outside the file")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise damaged_shard(shards, name, f"'{key}' is stored outside the file")
    return dataset
