"""The arrays of shards (layers, frames, dim) and the three ways to read frames from one.

Features that lie uncompressed and layer after layer in one file are mapped into memory where the
file is local, and fetched as ranges of bytes where it is not. What is compressed is fetched in
ranges anyway. The libraries that write shards do not read them: they are slow at small pieces, take
what is missing for zeros, and would have a file open that does not survive a fork.
"""

import math
import mmap
import operator
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np

from ..storage.folder import Folder

Array = np.ndarray[Any, Any]
LayerIndex = slice | list[int]

# All that are alive, as long as somebody holds a view: each keeps a file open.
_maps: WeakSet[Any] = WeakSet()


def most_maps() -> int:
    """Return how many files may be mapped at once: half of those a process may have open."""
    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def checked_form(shape: Sequence[int], dtype: Any) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return the form of an array of features, or raise ``ValueError`` if it cannot be one."""
    layers, frames, dim = (operator.index(size) for size in shape)
    form = np.dtype(dtype)
    if min(layers, frames, dim) < 1 or form not in (np.dtype("<f2"), np.dtype("<f4")):
        raise ValueError(f"shape {tuple(shape)} of {form} is not that of features")
    return (layers, frames, dim), form


class StoredArray(ABC):
    """An array (layers, frames, dim) somewhere, little-endian ``float16`` or ``float32``."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        """Return the frames from ``start`` to before ``stop``, (layers, frames, dim), read-only."""


class MappedArray(StoredArray):
    """In a local file: what is not asked for is never touched, and a slice copies nothing.

    Frames that are read for the first time are announced to the kernel, which then fetches them all
    while the caller goes on: page by page, as they are touched, a cold disk takes twice as long and
    reads more than was asked for. Announced again, warm ones would cost more than they do.
    """

    def __init__(self, mapped: "np.memmap[Any, Any]") -> None:
        # A plain array: each slice of a memmap costs three times as much.
        self._mapped = mapped.view(np.ndarray)
        self._map: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        self._first = mapped.offset % mmap.ALLOCATIONGRANULARITY  # byte of the map
        self._announced: set[int] = set()
        layers, frames, dim = mapped.shape
        self.shape = layers, frames, dim
        self.dtype = mapped.dtype

    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        if start not in self._announced:
            self._announce(layers, start, stop)
        found = self._mapped[layers, start:stop]
        if isinstance(layers, list):  # a copy; a view is read-only, as the map is
            found.flags.writeable = False
        return found

    def _announce(self, layers: LayerIndex, start: int, stop: int) -> None:
        self._announced.add(start)
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
    """Where the features lie in a file: from byte ``offset`` on, in C order, with no gaps."""

    file: str
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """How many bytes they are."""
        return math.prod(self.shape) * self.dtype.itemsize

    def opened(self, folder: Folder) -> StoredArray:
        """Map the file if it is local, and the process may have one more file open."""
        if folder.path is None or len(_maps) >= most_maps():
            return RangedArray(folder, self)
        mapped = np.memmap(
            folder.path / self.file, self.dtype, mode="r", offset=self.offset, shape=self.shape
        )
        _maps.add(mapped._mmap)  # type: ignore[attr-defined]
        return MappedArray(mapped)


class RangedArray(StoredArray):
    """In an object: the bytes of each layer are fetched, all at once, and no others."""

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
        found = b"".join(self._folder.read_ranges(self._layout.file, ranges))
        return np.frombuffer(found, self.dtype).reshape(len(ranges), stop - start, dim)


class ChunkedArray(StoredArray):
    """Compressed in chunks of so many frames of one layer: they are fetched all at once.

    ``index`` says where each lies, (layers, chunks, 2): its first byte, and how many they are.
    ``plain`` are the first bytes of those that are not compressed after all.
    """

    def __init__(
        self,
        folder: Folder,
        layout: Layout,
        frames: int,
        index: Array,
        decode: Callable[[bytes], Any],
        plain: Container[int] = (),
    ) -> None:
        self._folder, self._file, self._frames = folder, layout.file, frames
        self._index, self._decode, self._plain = index, decode, plain
        self.shape, self.dtype = layout.shape, layout.dtype

    def read(self, layers: LayerIndex, start: int, stop: int) -> Array:
        first, last = start // self._frames, -(-stop // self._frames)
        index = self._index[layers, first:last]
        ranges = [(begin, begin + count) for begin, count in index.reshape(-1, 2).tolist()]
        parts = self._folder.read_ranges(self._file, ranges)
        chunks = np.empty((len(ranges), self._frames, self.shape[2]), self.dtype)
        for chunk, part, (begin, _) in zip(chunks, parts, ranges, strict=True):
            decoded = part if begin in self._plain else self._decode(part)
            chunk[:] = np.frombuffer(decoded, self.dtype).reshape(chunk.shape)
        whole = chunks.reshape(len(index), (last - first) * self._frames, self.shape[2])
        found = whole[:, start - first * self._frames : stop - first * self._frames]
        found.flags.writeable = False
        return found
