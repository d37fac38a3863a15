"""The dtypes of an entry: what a reader gets, and what the shards hold.

``float16`` and ``float32`` are stored as they are. ``bfloat16``, the upper half of a float32, is
stored as its 16 bits in ``uint16``, because neither NumPy nor HDF5 has the type. ``int8`` is a code
of one byte; :mod:`.scale` gives its meaning. A reader gets ``float32`` of the last two.
"""

from typing import Any

import numpy as np

from .formats.arrays import Array, LayerIndex
from .scale import Scale

_STORED = {"float16": "<f2", "float32": "<f4", "bfloat16": "<u2", "int8": "|i1"}
DTYPES = tuple(_STORED)
_LARGEST = np.uint32(0x7F7F)  # bits of the largest finite bfloat16
_NAN = np.uint32(0x7FC0)


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """Return the dtype of the arrays in the shards of an entry of ``dtype``, one of ``DTYPES``."""
    return np.dtype(_STORED[dtype])


def read_dtype(dtype: str) -> str:
    """Return the dtype that a reader gets: ``float16`` or ``float32``."""
    return "float16" if dtype == "float16" else "float32"


def encoded(states: Array, dtype: str, scale: Scale | None) -> Array:
    """Return hidden states (layers, frames, dim), floating, as the shards hold them.

    Args:
        states: the hidden states. For ``int8`` they are finite.
        dtype: one of ``DTYPES``.
        scale: the scale of an ``int8`` entry.
    """
    if dtype == "bfloat16":
        return bfloat16_bits(states)
    return states.astype(dtype, copy=False) if scale is None else scale.codes(states)


def decoded(stored: Array, dtype: str, scale: Scale | None, layers: LayerIndex) -> Array:
    """Return what the shards hold, (layers, frames, dim), as a reader gets it, read-only.

    ``layers`` are the positions along the first axis that were read.
    """
    if scale is None and dtype != "bfloat16":
        return stored
    states = from_bfloat16(stored) if scale is None else scale.numbers(stored, layers)
    states.flags.writeable = False
    return states


def bfloat16_bits(states: Array) -> Array:
    """Return floating numbers, rounded to the nearest bfloat16, as uint16 of the same shape.

    A tie goes to the even number. A finite number stays finite; a NaN stays a NaN.
    """
    numbers = np.ascontiguousarray(states, np.float32)
    bits = numbers.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    magnitude = rounded & np.uint32(0x7FFF)
    over = (magnitude > _LARGEST) & np.isfinite(numbers)
    rounded = np.where(over, sign | _LARGEST, rounded)
    result: Array = np.where(np.isnan(numbers), sign | _NAN, rounded).astype("<u2")
    return result


def from_bfloat16(bits: Array) -> Array:
    """Return float32 of the same shape: the exact values of bfloat16 numbers, given as uint16."""
    numbers = np.zeros((*bits.shape, 2), "<u2")
    numbers[..., 1] = bits
    result: Array = numbers.view("<f4")[..., 0]
    return result
