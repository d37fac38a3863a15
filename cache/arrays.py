"""The arrays of shards (layers, frames, dim) and the three ways to read frames from one.

Features that lie uncompressed and layer after layer in one file are mapped into memory where the
file is local, and fetched as ranges of bytes where it is not. All else goes through the library
that wrote it.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .folder import Folder

Array = np.ndarray[Any, Any]
Layers = slice | list[int]


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
    def read(self, layers: Layers, start: int, stop: int) -> Array:
        """Return the frames from ``start`` to before ``stop``, (layers, frames, dim), read-only."""


class MappedArray(StoredArray):
    """In a local file: what is not asked for is never touched, and a slice copies nothing."""

    def __init__(self, mapped: Array) -> None:
        self._mapped = mapped
        layers, frames, dim = mapped.shape
        self.shape = layers, frames, dim
        self.dtype = mapped.dtype

    def read(self, layers: Layers, start: int, stop: int) -> Array:
        found = self._mapped[layers, start:stop]
        found.flags.writeable = False
        return found


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
        """Map the file if it is local."""
        if folder.path is None:
            return RangedArray(folder, self)
        mapped = np.memmap(
            folder.path / self.file, self.dtype, mode="r", offset=self.offset, shape=self.shape
        )
        # A plain array: each slice of a memmap costs three times as much.
        return MappedArray(mapped.view(np.ndarray))


class RangedArray(StoredArray):
    """In an object: the bytes of each layer are fetched, all at once, and no others."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self.shape, self.dtype = layout.shape, layout.dtype

    def read(self, layers: Layers, start: int, stop: int) -> Array:
        count, frames, dim = self.shape
        frame = dim * self.dtype.itemsize
        firsts = [
            self._layout.offset + (layer * frames + start) * frame
            for layer in np.arange(count)[layers].tolist()
        ]
        ranges = [(first, first + (stop - start) * frame) for first in firsts]
        found = b"".join(self._folder.read_ranges(self._layout.file, ranges))
        return np.frombuffer(found, self.dtype).reshape(len(ranges), stop - start, dim)


class DecodedArray(StoredArray):
    """Compressed: read by the library that wrote it, opened anew for each reading.

    So nothing is open that would not survive a fork, and threads share nothing.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Any]],
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self._opened, self.shape, self.dtype = opened, shape, dtype

    def read(self, layers: Layers, start: int, stop: int) -> Array:
        with self._opened() as array:
            chosen = np.arange(self.shape[0])[layers].tolist()
            found = np.stack([np.asarray(array[layer, start:stop]) for layer in chosen])
        found.flags.writeable = False
        return found
