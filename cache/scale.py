"""The scale of an ``int8`` entry: what its codes mean, for each layer and dimension.

A code q from -127 to 127 stands for ``offset + step · q`` while ``|q| ≤ 96``. Beyond, the steps
grow: ``offset ± step · 96 · growth ** (|q| - 96)``. The even codes cover one and a half times the
range of nearly all numbers of a few utterances, the calibration; the others reach so far that a
number outside this range keeps its size to a few per cent and is not cut off. So no number needs a
place aside, and an outlier dimension makes only its own steps large. (Interpretation: even steps
are those of absmax quantisation by row and column, Dettmers et al., LLM.int8(), NeurIPS 2022; the
growing steps are companding, as in ITU-T G.711.)

The scale is a file of its entry, written once by exclusive creation before the first shard. Each
shard stores the digest of the scale of its codes.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .formats.arrays import Array, LayerIndex

FILE = "scale.npz"
CALIBRATION = 64
"""Utterances from which a scale is computed."""
_FRAMES = 32  # of each of them, evenly spaced: more would only take memory
_EVEN = 96  # codes with even steps on each side of the offset
_CODES = 127
_TAIL = 0.01  # of the calibration's numbers on each side, which do not widen the even range
_MARGIN = 1.5  # the even range is so much wider: a few utterances do not show the largest numbers
_REACH = 16.0  # the last code is at least so many even ranges from the offset
_BEYOND = 4.0  # and at least so many times as far as the largest number of the calibration
_HEADER = 1024  # bytes of the header of an array in the file, at most
_DATE = (1980, 1, 1, 0, 0, 0)  # of the files in the archive: equal scales have equal bytes


@dataclass(frozen=True)
class Scale:
    """``offset``, ``step`` and ``growth``, each (layers, dim) float32, finite; ``step`` above 0."""

    offset: Array
    step: Array
    growth: Array

    @classmethod
    def of(cls, utterances: Iterable[Array]) -> "Scale":
        """Compute the scale from hidden states (layers, frames, dim), floating and finite."""
        frames = np.concatenate([_some_frames(states) for states in utterances], axis=1)
        low, high = np.quantile(frames, [_TAIL, 1 - _TAIL], axis=1, method="closest_observation")
        offset = ((low.astype(np.float64) + high) / 2).astype(np.float32)
        largest = np.abs(frames - offset[:, None]).max(axis=1).astype(np.float64)
        usual = (high.astype(np.float64) - low) / 2
        usual = np.where(usual > 0, usual, largest)  # rare numbers in a dimension of equal ones
        for layer in usual:  # of a dimension without any range, the range is a guess
            ranges = layer[layer > 0]
            layer[layer <= 0] = np.median(ranges) if len(ranges) else 1.0
        even = np.maximum(_MARGIN * usual, np.finfo(np.float32).tiny * _CODES)
        reach = np.maximum(_REACH * even, _BEYOND * largest)
        growth = (reach / even) ** (1 / (_CODES - _EVEN))
        return cls(offset, (even / _EVEN).astype(np.float32), growth.astype(np.float32))

    def codes(self, states: Array) -> Array:
        """Return the nearest codes, int8, of hidden states (layers, frames, dim), finite."""
        distance = states.astype(np.float32) - self.offset[:, None]
        distance /= self.step[:, None]  # in even steps
        far = np.nonzero(np.abs(distance) > _EVEN)
        tail = distance[far].astype(np.float64)
        codes: Array = np.rint(np.clip(distance, -_EVEN, _EVEN)).astype(np.int8)
        if len(tail):
            growth = self.growth[far[0], far[2]].astype(np.float64)
            beyond = np.rint(np.log(np.abs(tail) / _EVEN) / np.log(growth))
            size = np.minimum(_EVEN + beyond, _CODES)
            codes[far] = np.copysign(size, tail).astype(np.int8)
        return codes

    def numbers(self, codes: Array, layers: LayerIndex = slice(None)) -> Array:
        """Return float32 of codes (layers, frames, dim); ``layers`` are positions in the scale."""
        offset, step = self.offset[layers][:, None], self.step[layers][:, None]
        numbers: Array = codes.astype(np.float32)
        far = np.nonzero((codes > _EVEN) | (codes < -_EVEN))
        if len(far[0]):
            tail = numbers[far].astype(np.float64)
            growth = self.growth[layers][far[0], far[2]].astype(np.float64)
            numbers[far] = np.copysign(_EVEN * growth ** (np.abs(tail) - _EVEN), tail)
        numbers *= step
        numbers += offset
        return numbers

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits: the hash of the numbers of the scale."""
        parts = b"".join(array.astype("<f4").tobytes() for array in self._arrays.values())
        return hashlib.sha256(parts).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """Return the scale as an uncompressed ``.npz``, whose format has a checksum."""
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for name, array in self._arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, array.astype("<f4"), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), content.getvalue())
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, shape: tuple[int, int]) -> "Scale":
        """Read a scale of ``shape``, (layers, dim).

        Raises:
            ValueError: the content is damaged, or not a scale of this shape.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                scale = cls(*(_array(archive, name, shape) for name in _NAMES))
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, OSError) as error:
            raise ValueError(f"not a scale ({' '.join(str(error).split())})") from error
        if not all(np.isfinite(array).all() for array in scale._arrays.values()):
            raise ValueError("not a scale: a number is not finite")
        if (scale.step <= 0).any() or (scale.growth <= 1).any():
            raise ValueError("not a scale: a step is not above 0, or a growth not above 1")
        return scale

    @property
    def _arrays(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = ("offset", "step", "growth")


def calibration_ids(ids: Iterable[str]) -> list[str]:
    """Return the utterances that calibrate: the first ``CALIBRATION`` by the hash of their ids.

    So they are the same for all writers, whatever the order of the corpus, and of all its speakers.
    """
    return sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())[:CALIBRATION]


def _some_frames(states: Array) -> Array:
    """Return at most ``_FRAMES`` frames of (layers, frames, dim) as float32, evenly spaced."""
    count = states.shape[1]
    chosen = np.linspace(0, count - 1, min(count, _FRAMES)).astype(int)
    return states[:, chosen].astype(np.float32)


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, int]) -> Array:
    info = archive.getinfo(f"{name}.npy")
    size = 4 * shape[0] * shape[1]
    if info.compress_type != zipfile.ZIP_STORED or not size < info.file_size <= size + _HEADER:
        raise ValueError(f"'{name}' does not have the size of a scale")
    array: Any = np.lib.format.read_array(
        io.BytesIO(archive.read(info)), allow_pickle=False, max_header_size=_HEADER
    )
    if array.shape != shape or array.dtype != np.dtype("<f4"):
        raise ValueError(f"'{name}' has the shape {array.shape} of {array.dtype}")
    return np.ascontiguousarray(array)
