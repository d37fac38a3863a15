"""A shard as a Zarr v3 group: one array, utterances end to end, each layer in chunks of its own.

The array ``hidden_states`` (layers, frames, dim) is stored through Zarr's sharding codec: one file
whose inner chunks are the layers, with an index at its end. A shard is therefore one large file
instead of thirteen. Uncompressed, the file is the array itself. It is read without zarr-python.

The group's attributes give the position of each utterance.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import damaged_shard
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

_FILE = f"{ARRAY}/c/0/0/0"
_INDEX_ROW = 16  # bytes: offset and length of an inner chunk, little-endian uint64 each
_CHECKSUM = 4  # bytes: crc32c behind the index
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_SINGLE_BYTES = {"name": "bytes"}


class ZarrFormat(StoreFormat):
    """Zarr v3, one folder per shard."""

    suffix = ""

    def write(
        self, path: Path, states: Array, attributes: Mapping[str, Any], compression: str
    ) -> None:
        import zarr  # noqa: PLC0415 -- slow to import, and reading does not need it

        layers, frames, dim = states.shape
        chunk = chunk_frames(frames, compression)
        # In memory first: where a disk is full or gone, zarr-python continues in threads of its
        # own and creates folders again.
        files: dict[str, Any] = {}
        memory = zarr.storage.MemoryStore(files)
        group = zarr.open_group(memory, mode="w-", zarr_format=3, attributes=dict(attributes))
        array = group.create_array(
            ARRAY,
            shape=states.shape,
            dtype=states.dtype,
            chunks=(1, chunk, dim),
            shards=(layers, -(-frames // chunk) * chunk, dim),
            compressors=_compressor(compression),
            filters=None,
            fill_value=0,
            dimension_names=AXES,
            config={"write_empty_chunks": True},  # a layer of zeros is stored like any other
        )
        array[...] = states
        for name, content in files.items():
            for folder in reversed(Path(name).parents):
                (path / folder).mkdir(exist_ok=True)
            (path / name).write_bytes(content.as_numpy_array())

    def read_attributes(self, shards: Folder, name: str) -> dict[str, Any]:
        attributes: dict[str, Any] = json.loads(shards.read(f"{name}/zarr.json"))["attributes"]
        return attributes

    def open_array(self, shards: Folder, name: str) -> StoredArray:
        metadata = json.loads(shards.read(f"{name}/{ARRAY}/zarr.json"))
        shape, dtype = checked_form(metadata["shape"], metadata["data_type"])
        layers, frames, dim = shape
        (sharding,) = metadata["codecs"]
        first, *others = sharding["configuration"]["codecs"]
        codecs = [codec["name"] for codec in others]
        compression = codecs[0] if codecs else "none"
        chunk_shape = sharding["configuration"]["chunk_shape"]
        if (
            sharding["name"] != "sharding_indexed"
            or first != (_SINGLE_BYTES if dtype.itemsize == 1 else _BYTES)
            or codecs not in ([], ["zstd"], ["blosc"])
            or not is_chunk(chunk_shape, frames, dim, compression)
        ):
            raise damaged_shard(shards, name, "mser does not write such codecs or chunks")
        layout = Layout(f"{name}/{_FILE}", 0, shape, dtype)
        if shards.has_link(layout.file):
            raise damaged_shard(shards, name, "a part of it is a symbolic link")
        chunks = -(-frames // chunk_shape[1])
        index_bytes = layers * chunks * _INDEX_ROW
        data_bytes = shards.size(layout.file) - index_bytes - _CHECKSUM
        if data_bytes < 1 or (not codecs and data_bytes != layout.bytes):
            raise damaged_shard(shards, name, "its data are cut off or too long")
        (content,) = shards.read_ranges(layout.file, [(data_bytes, data_bytes + index_bytes)])
        index = np.frombuffer(content, "<u8").reshape(layers, chunks, 2)
        if (index > data_bytes).any() or (index.sum(axis=2) > data_bytes).any():
            raise damaged_shard(shards, name, "it has no index, or has gaps")
        if codecs:
            return ChunkedArray(shards, layout, chunk_shape[1], index, decoder(compression))
        layer_bytes = layout.bytes // layers
        if not (
            np.array_equal(index[:, 0, 0], np.arange(layers, dtype="u8") * np.uint64(layer_bytes))
            and (index[:, 0, 1] == layer_bytes).all()
        ):
            raise damaged_shard(shards, name, "its layers have gaps")
        return layout.opened(shards)


def _compressor(compression: str) -> Any:
    from zarr.codecs import BloscCodec, ZstdCodec  # noqa: PLC0415 -- as above

    match compression:
        case "zstd":
            return ZstdCodec(level=ZSTD_LEVEL)
        case "blosc":
            return BloscCodec(cname="zstd", clevel=BLOSC_LEVEL, shuffle="bitshuffle")
    return None
