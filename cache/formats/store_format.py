"""The interface of a store format, and the choices that all formats share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numcodecs

from ..storage.folder import Folder
from .arrays import Array, StoredArray

ARRAY = "hidden_states"
AXES = ("layer", "frame", "feature")
COMPRESSIONS = ("none", "zstd", "blosc")
ZSTD_LEVEL = 3
BLOSC_LEVEL = 5  # of the zstd inside Blosc, after a bit shuffle
_COMPRESSED_FRAMES = 256  # per chunk; a read decompresses whole chunks
_DECODERS = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc}


class StoreFormat(ABC):
    """How one shard is stored: the hidden states of its utterances and a few attributes.

    An instance has no state. A shard is written as a local file or folder. It is read through a
    :class:`~mser.cache.storage.folder.Folder`, which may be remote.
    """

    suffix: ClassVar[str]
    """End of a shard's name, from the first ``.`` on; unique among the formats, may be empty."""

    @abstractmethod
    def write(
        self, path: Path, states: Array, attributes: Mapping[str, Any], compression: str
    ) -> None:
        """Write a shard as a new file or folder ``path``.

        Args:
            path: a path that does not exist yet.
            states: the hidden states of all utterances, (layers, frames, dim), of one of
                ``STORED_DTYPES``.
            attributes: JSON values; :meth:`read_attributes` returns them.
            compression: one of ``COMPRESSIONS``.
        """

    @abstractmethod
    def read_attributes(self, shards: Folder, name: str) -> dict[str, Any]:
        """Return the attributes of the shard ``name``; errors as for :meth:`open_array`."""

    @abstractmethod
    def open_array(self, shards: Folder, name: str) -> StoredArray:
        """Return the hidden states of the shard ``name``, without reading them yet.

        Raises:
            FileNotFoundError: the shard or a part of it is missing.
            DamagedError: mser does not write such a shard.
            OSError, ValueError, LookupError, TypeError: as the libraries raise them for damaged
                bytes; the caller turns them into ``DamagedError``.
        """


def chunk_frames(frames: int, compression: str) -> int:
    """Return how many frames of one layer are stored as one chunk."""
    return frames if compression == "none" else min(frames, _COMPRESSED_FRAMES)


def is_chunk(chunk: tuple[int, ...], frames: int, dim: int, compression: str) -> bool:
    """Return whether chunks (layers, frames, dim) can be those of an array that mser wrote."""
    layers, chunk_length, width = chunk
    most = _COMPRESSED_FRAMES if compression != "none" else frames
    return (layers, width) == (1, dim) and 1 <= chunk_length <= most


def decoder(compression: str) -> Callable[[bytes], Any]:
    """Return the function that decompresses one chunk."""
    decode: Callable[[bytes], Any] = _DECODERS[compression]().decode
    return decode
