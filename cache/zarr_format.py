"""A shard as a Zarr v3 group: one array, utterances end to end, each layer in chunks of its own.

The array ``hidden_states`` (layers, frames, dim) is stored through Zarr's sharding codec: one file
whose inner chunks are the layers, with an index at its end. So a shard is one large file instead of
thirteen. Uncompressed, the file is the array itself, and is read without zarr-python.

The group's attributes say which utterance lies where.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from .arrays import Array, DecodedArray, Layout, StoredArray, checked_form
from .errors import CacheError
from .folder import Folder

SUFFIX = ""
ARRAY = "hidden_states"
FILE = f"{ARRAY}/c/0/0/0"
_INDEX_ROW = 16  # offset and length of an inner chunk, little-endian uint64 each
_CHECKSUM = 4  # crc32c behind the index
_COMPRESSED_FRAMES = 256  # of a chunk: what must be decoded to read one frame
_COMPRESSORS = {
    "zstd": lambda: ZstdCodec(level=3),
    "blosc": lambda: BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
}


def write(path: Path, states: Array, attributes: Mapping[str, Any], compression: str) -> None:
    """Write a shard as a new folder ``path``; ``states`` are (layers, frames, dim)."""
    layers, frames, dim = states.shape
    compressor = _COMPRESSORS[compression]() if compression != "none" else None
    chunk = min(frames, _COMPRESSED_FRAMES) if compressor else frames
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes=dict(attributes))
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
    layers = shape[0]
    (sharding,) = metadata["codecs"]
    first, *others = sharding["configuration"]["codecs"]
    codecs = [codec["name"] for codec in others]
    if (
        sharding["name"] != "sharding_indexed"
        or first != {"name": "bytes", "configuration": {"endian": "little"}}
        or codecs not in ([], *([name] for name in _COMPRESSORS))
    ):
        raise CacheError(f"shard {name} of {shards} is stored by codecs that mser never writes")
    if codecs:
        return DecodedArray(lambda: _opened(shards, name), shape, dtype)
    layout = Layout(f"{name}/{FILE}", 0, shape, dtype)
    index_bytes = layers * _INDEX_ROW
    if shards.size(layout.file) != layout.bytes + index_bytes + _CHECKSUM:
        raise CacheError(f"shard {name} of {shards} is damaged: its data are cut off or too long")
    (index,) = shards.read_ranges(layout.file, [(layout.bytes, layout.bytes + index_bytes)])
    found = np.frombuffer(index, "<u8").reshape(layers, 2)
    layer_bytes = layout.bytes // layers
    if not (
        np.array_equal(found[:, 0], np.arange(layers, dtype="u8") * np.uint64(layer_bytes))
        and (found[:, 1] == layer_bytes).all()
    ):
        raise CacheError(f"shard {name} of {shards} was not written by mser: its layers have gaps")
    return layout.opened(shards)


class _Whole(zarr.storage.WrapperStore):  # type: ignore[misc]
    """A store in which the file of the features must be there.

    Zarr takes a file that is missing, as where a shard is deleted meanwhile, for one of zeros.
    """

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        found = await super().get(key, *args, **kwargs)
        if found is None and key == FILE:
            raise FileNotFoundError(key)
        return found


@contextmanager
def _opened(shards: Folder, name: str) -> Iterator[Any]:
    remote = shards.store()
    if remote is None:
        store: Any = zarr.storage.LocalStore(f"{shards.path}/{name}", read_only=True)
    else:
        url, options = remote
        store = zarr.storage.FsspecStore.from_url(
            f"{url}/{name}", storage_options=dict(options), read_only=True
        )
    yield zarr.open_array(_Whole(store), path=ARRAY, mode="r")
