"""A shard as a Zarr v3 group: one array, utterances end to end, each layer in chunks of its own.

The array ``hidden_states`` (layers, frames, dim) is stored through Zarr's sharding codec: one file
whose inner chunks are the layers, with an index at its end. So a shard is one large file instead of
thirteen. Uncompressed, the file is the array itself. It is read without zarr-python.

The group's attributes say which utterance lies where.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from ..errors import CacheError
from ..storage.folder import Folder
from .arrays import Array, ChunkedArray, Layout, StoredArray, checked_form

SUFFIX = ""
ARRAY = "hidden_states"
FILE = f"{ARRAY}/c/0/0/0"
_INDEX_ROW = 16  # offset and length of an inner chunk, little-endian uint64 each
_CHECKSUM = 4  # crc32c behind the index
_COMPRESSED_FRAMES = 256  # of a chunk: what must be decoded to read one frame
_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "zstd": lambda: ZstdCodec(level=3),
    "blosc": lambda: BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
}
_DECODERS = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc}


def write(path: Path, states: Array, attributes: Mapping[str, Any], compression: str) -> None:
    """Write a shard as a new folder ``path``; ``states`` are (layers, frames, dim)."""
    layers, frames, dim = states.shape
    compressor = _COMPRESSORS[compression]() if compression != "none" else None
    chunk = min(frames, _COMPRESSED_FRAMES) if compressor else frames
    # In memory first: where a disk is full or gone, zarr-python goes on in threads of its own, and
    # makes folders again.
    files: dict[str, Any] = {}
    memory = zarr.storage.MemoryStore(files)
    group = zarr.open_group(memory, mode="w-", zarr_format=3, attributes=dict(attributes))
    array = group.create_array(
        ARRAY,
        shape=states.shape,
        dtype=states.dtype,
        chunks=(1, chunk, dim),
        shards=(layers, -(-frames // chunk) * chunk, dim),
        compressors=compressor,
        filters=None,
        fill_value=0,
        dimension_names=("layer", "frame", "feature"),
        config={"write_empty_chunks": True},  # a layer of zeros is a layer, too
    )
    array[...] = states
    for name, content in files.items():
        for folder in reversed(Path(name).parents):
            (path / folder).mkdir(exist_ok=True)
        (path / name).write_bytes(content.as_numpy_array())


def read_attributes(shards: Folder, name: str) -> dict[str, Any]:
    """Return what was written as ``attributes``."""
    attributes: dict[str, Any] = json.loads(shards.read(f"{name}/zarr.json"))["attributes"]
    return attributes


def open_array(shards: Folder, name: str) -> StoredArray:
    """Return the array of a shard.

    Raises:
        CacheError: the array is not one that mser writes.
        FileNotFoundError, ValueError, KeyError, TypeError: the shard is not there, or damaged.
    """
    metadata = json.loads(shards.read(f"{name}/{ARRAY}/zarr.json"))
    shape, dtype = checked_form(metadata["shape"], metadata["data_type"])
    layers, frames, dim = shape
    (sharding,) = metadata["codecs"]
    first, *others = sharding["configuration"]["codecs"]
    codecs = [codec["name"] for codec in others]
    one, chunk, width = sharding["configuration"]["chunk_shape"]
    if (
        sharding["name"] != "sharding_indexed"
        or first != {"name": "bytes", "configuration": {"endian": "little"}}
        or codecs not in ([], *([name] for name in _DECODERS))
        or (one, width) != (1, dim)
        or not 1 <= chunk <= (_COMPRESSED_FRAMES if codecs else frames)
    ):
        raise CacheError(f"shard {name} of {shards} is stored by codecs that mser never writes")
    layout = Layout(f"{name}/{FILE}", 0, shape, dtype)
    chunks = -(-frames // chunk)
    index_bytes = layers * chunks * _INDEX_ROW
    data_bytes = shards.size(layout.file) - index_bytes - _CHECKSUM
    if data_bytes < 1 or (not codecs and data_bytes != layout.bytes):
        raise CacheError(f"shard {name} of {shards} is damaged: its data are cut off or too long")
    (index,) = shards.read_ranges(layout.file, [(data_bytes, data_bytes + index_bytes)])
    found = np.frombuffer(index, "<u8").reshape(layers, chunks, 2)
    if (found > data_bytes).any() or (found.sum(axis=2) > data_bytes).any():
        raise CacheError(f"shard {name} of {shards} is damaged: it has no index, or has gaps")
    if codecs:
        return ChunkedArray(shards, layout, chunk, found, _DECODERS[codecs[0]]().decode)
    layer_bytes = layout.bytes // layers
    if not (
        np.array_equal(found[:, 0, 0], np.arange(layers, dtype="u8") * np.uint64(layer_bytes))
        and (found[:, 0, 1] == layer_bytes).all()
    ):
        raise CacheError(f"shard {name} of {shards} was not written by mser: its layers have gaps")
    return layout.opened(shards)
