"""The arrays of shards (layers, frames, dim) and the three ways to read frames from one.

Uncompressed features are stored layer after layer in one file. A local file is mapped into memory;
of a remote one, ranges of bytes are fetched. Compressed features are always fetched as ranges. The
libraries that write shards do not read them: they read small pieces slowly, return zeros for
missing data, and keep a file open that does not survive a fork.
"""

import math
import mmap
import operator
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np

from ..storage.folder import Folder

Array = np.ndarray[Any, Any]
LayerIndex = slice | list[int]
STORED_DTYPES = tuple(map(np.dtype, ("<f2", "<f4", "<u2", "|i1")))

_KEPT = 30.0  # seconds after a request in which the kernel keeps the pages, in all likelihood

# All maps in use. A map stays alive as long as a view of it does, and keeps a file open.
_maps: WeakSet[Any] = WeakSet()


def most_maps() -> int:
    """Return how many files may be mapped at once: half of the process's limit of open files."""
    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def release_maps() -> None:
    """Take the pages of all mapped files out of the resident memory of this process.

    They stay in the page cache, where the next access finds them. Without this, the pages of all
    features that a process has read count as its memory until others need the space, and a limit
    that counts them may end it.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_maps):
            mapped.madvise(mmap.MADV_DONTNEED)


def checked_form(shape: Sequence[int], dtype: Any) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return shape and dtype of an array of features, or raise ``ValueError`` if it cannot be one.

    Such an array is (layers, frames, dim), not empty, of one of ``STORED_DTYPES``.
    """
    layers, frames, dim = (operator.index(size) for size in shape)
    dtype = np.dtype(dtype)
    if min(layers, frames, dim) < 1 or dtype not in STORED_DTYPES:
        raise ValueError(f"shape {tuple(shape)} of {dtype} is not that of features")
    return (layers, frames, dim), dtype


class StoredArray(ABC):
    """An array (layers, frames, dim) of a shard, of one of ``STORED_DTYPES``."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        """Return the frames ``start`` to ``stop - 1``, (layers, frames, dim), read-only.

        ``layers`` are positions along the first axis.
        """


class MappedArray(StoredArray):
    """A local file mapped into memory: a slice copies nothing and reads no other bytes.

    A read of layers of an utterance asks the kernel to load all its pages while the caller goes on.
    Without that, the kernel loads them at the first access to each, and with them as much as it
    reads ahead, which may be many times what was asked for. The same request soon afterwards would
    only cost time; later, the kernel may have dropped the pages for others.
    """

    def __init__(self, mapped: "np.memmap[Any, Any]") -> None:
        # A plain array: each slice of a memmap costs three times as much.
        self._mapped = mapped.view(np.ndarray)
        self._map: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        self._first = mapped.offset % mmap.ALLOCATIONGRANULARITY  # byte of the map
        self._requested: dict[tuple[Any, ...], float] = {}  # range → when (monotonic seconds)
        layers, frames, dim = mapped.shape
        self.shape = layers, frames, dim
        self.dtype = mapped.dtype

    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        wanted = tuple(layers) if isinstance(layers, list) else (layers.start, layers.stop)
        now = time.monotonic()
        if now - self._requested.get((start, *wanted), -math.inf) > _KEPT:
            self._requested[start, *wanted] = now
            self._request(layers, start, stop)
        states: Array = self._mapped[layers, start:stop]
        if isinstance(layers, list):  # a copy; a view is read-only like its map
            states.flags.writeable = False
        return states

    def _request(self, layers: LayerIndex, start: int, stop: int) -> None:
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        count, frames, dim = self.shape
        frame = dim * self.dtype.itemsize
        for layer in np.arange(count)[layers].tolist():
            begin = self._first + (layer * frames + start) * frame
            page = begin - begin % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, begin - page + (stop - start) * frame)


@dataclass(frozen=True)
class Layout:
    """Where a file holds the features: from byte ``offset`` on, in C order, without gaps."""

    file: str
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Size of the features in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def opened(self, folder: Folder) -> StoredArray:
        """Map the file if it is local and the process may open one more file."""
        if folder.path is None or len(_maps) >= most_maps():
            return RangedArray(folder, self)
        mapped = np.memmap(
            folder.path / self.file, self.dtype, mode="r", offset=self.offset, shape=self.shape
        )
        _maps.add(mapped._mmap)  # type: ignore[attr-defined]
        return MappedArray(mapped)


class RangedArray(StoredArray):
    """Uncompressed features in a remote file: only the bytes of the wanted layers are fetched."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self.shape, self.dtype = layout.shape, layout.dtype

    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        count, frames, dim = self.shape
        frame = dim * self.dtype.itemsize
        firsts = [
            self._layout.offset + (layer * frames + start) * frame
            for layer in np.arange(count)[layers].tolist()
        ]
        ranges = [(first, first + (stop - start) * frame) for first in firsts]
        content = b"".join(self._folder.read_ranges(self._layout.file, ranges))
        return np.frombuffer(content, self.dtype).reshape(len(ranges), stop - start, dim)


class ChunkedArray(StoredArray):
    """Features compressed in chunks of a few frames of one layer.

    All chunks of a read are fetched at once.

    Args:
        folder: the folder of the shards.
        layout: the file, its shape and dtype.
        frames: length of a chunk.
        index: of each chunk the position of its first byte and its size, (layers, chunks, 2).
        decode: decompresses a chunk.
        uncompressed: first bytes of the chunks that are stored without compression.
    """

    def __init__(
        self,
        folder: Folder,
        layout: Layout,
        frames: int,
        index: Array,
        decode: Callable[[bytes], Any],
        uncompressed: Container[int] = (),
    ) -> None:
        self._folder, self._file, self._frames = folder, layout.file, frames
        self._index, self._decode, self._uncompressed = index, decode, uncompressed
        self.shape, self.dtype = layout.shape, layout.dtype

    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        first, last = start // self._frames, -(-stop // self._frames)
        index = self._index[layers, first:last]
        ranges = [(begin, begin + count) for begin, count in index.reshape(-1, 2).tolist()]
        parts = self._folder.read_ranges(self._file, ranges)
        chunks = np.empty((len(ranges), self._frames, self.shape[2]), self.dtype)
        for chunk, part, (begin, _) in zip(chunks, parts, ranges, strict=True):
            decoded = part if begin in self._uncompressed else self._decode(part)
            chunk[:] = np.frombuffer(decoded, self.dtype).reshape(chunk.shape)
        whole = chunks.reshape(len(index), (last - first) * self._frames, self.shape[2])
        states = whole[:, start - first * self._frames : stop - first * self._frames]
        states.flags.writeable = False
        return states
