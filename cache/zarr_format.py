"""One shard as a Zarr v3 group: utterances end to end in one array, each layer a chunk.

The array ``hidden_states`` (layers, frames, dim) is stored through Zarr's sharding codec: one file
whose inner chunks are the layers, uncompressed, with an index of 16 bytes a layer at its end. So a
shard is one large file instead of thirteen, ``zarr.open_group`` reads it anywhere, and we map it
into memory and hand out views without going through zarr-python at all.

The group's attributes say which utterance lies where, which makes a shard complete in itself: the
entry's index is made from the shards and can always be made again.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from .atomic import commit_folder, temporary_beside
from .errors import CacheError

ARRAY = "hidden_states"
_INDEX_ROW = 16  # offset and length of an inner chunk, little-endian uint64 each
_CHECKSUM = 4  # crc32c behind the index


@dataclass(frozen=True)
class Row:
    """Where one utterance lies: ``length`` frames from ``offset`` on in the arrays of ``shard``."""

    id: str
    shard: str
    offset: int
    length: int
    content_hash: str


def write_shard(
    path: Path, arrays: Sequence[np.ndarray[Any, Any]], rows: Sequence[Row], written: str
) -> None:
    """Write one shard so that it is there whole or not at all.

    ``arrays`` are (layers, frames, dim), one an utterance, all of one dtype, in the order of
    ``rows``. ``written`` is the time of writing (ISO 8601), by which a newer copy of an utterance
    is told from an older one.
    """
    hidden_states = np.concatenate(arrays, axis=1)
    layers, frames, dim = hidden_states.shape
    temporary = temporary_beside(path)
    group = zarr.open_group(
        temporary,
        mode="w",
        zarr_format=3,
        attributes={
            "ids": [row.id for row in rows],
            "offsets": [row.offset for row in rows],
            "lengths": [row.length for row in rows],
            "content_hashes": [row.content_hash for row in rows],
            "written": written,
        },
    )
    array = group.create_array(
        ARRAY,
        shape=hidden_states.shape,
        dtype=hidden_states.dtype,
        chunks=(1, frames, dim),
        shards=(layers, frames, dim),
        compressors=None,
        filters=None,
        fill_value=0,
        dimension_names=("layer", "frame", "feature"),
        config={"write_empty_chunks": True},  # a layer of zeros is a layer, too
    )
    array[...] = hidden_states
    commit_folder(temporary, path)


def read_rows(path: Path) -> tuple[list[Row], str]:
    """Return the rows of a shard and the time at which it was written.

    Raises:
        CacheError: the shard's metadata are damaged.
    """
    with _damage_named(path):
        attributes = _metadata(path)["attributes"]
        columns = (attributes[name] for name in ("ids", "offsets", "lengths", "content_hashes"))
        rows = [
            Row(id, path.name, offset, length, content_hash)
            for id, offset, length, content_hash in zip(*columns, strict=True)
        ]
        return rows, attributes["written"]


def map_shard(path: Path) -> np.ndarray[Any, Any]:
    """Map a shard into memory, as one read-only array (layers, frames, dim), copying nothing.

    Raises:
        CacheError: the shard is missing, or its file is not the array that its metadata describe.
    """
    with _damage_named(path):
        metadata = _metadata(path / ARRAY)
        layers, frames, dim = metadata["shape"]
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    file = path / ARRAY / "c" / "0" / "0" / "0"
    layer_bytes = frames * dim * dtype.itemsize
    index_bytes = layers * _INDEX_ROW
    with _damage_named(path):
        raw = np.memmap(file, mode="r")
    if raw.size != layers * layer_bytes + index_bytes + _CHECKSUM:
        raise CacheError(f"shard {path} is damaged: its data are not as long as they should be")
    index = raw[-index_bytes - _CHECKSUM : -_CHECKSUM].view("<u8").reshape(layers, 2)
    in_order = np.arange(layers, dtype=np.uint64) * np.uint64(layer_bytes)
    if not (np.array_equal(index[:, 0], in_order) and (index[:, 1] == layer_bytes).all()):
        raise CacheError(f"shard {path} was not written by mser: its layers do not lie in order")
    shard: np.ndarray[Any, Any] = raw[: layers * layer_bytes].view(dtype)
    return shard.reshape(layers, frames, dim)


def _metadata(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())
    return metadata


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"shard {path} is damaged: {error!r}") from error
