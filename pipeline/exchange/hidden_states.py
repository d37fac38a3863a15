"""Checks and conversion of an array that is imported as the hidden states of one utterance."""

import hashlib

import numpy as np

from ...cache import EntrySpec
from ...cache.formats.arrays import Array
from .arrays import UnusableError


def hidden_states(array: Array) -> Array:
    """Return an array of floating-point or whole numbers as (layers, frames, dim).

    Raises:
        UnusableError: it does not contain numbers, has another shape, or has no frames.
    """
    if array.dtype.kind not in "fiu":
        raise UnusableError("not-float", f"it contains {array.dtype}, not numbers")
    if array.ndim not in (2, 3):
        raise UnusableError(
            "shape",
            f"its shape is {array.shape}, neither (frames, dim) nor (layers, frames, dim)",
        )
    if not array.size:
        raise UnusableError("empty", f"its shape is {array.shape}, without frames")
    return array if array.ndim == 3 else array[np.newaxis]


def as_stored(array: Array, spec: EntrySpec) -> Array:
    """Return a copy of (layers, frames, dim) in the dtype that readers of the entry get.

    Raises:
        UnusableError: it has other numbers of layers or dimensions than the entry, or a value that
            is not finite in this dtype.
    """
    layers, _, dim = array.shape
    if (layers, dim) != (len(spec.layers), spec.dim):
        raise UnusableError(
            "shape",
            f"it has {layers} layers of width {dim}, but most have {len(spec.layers)} layers of "
            f"width {spec.dim}",
        )
    if not np.isfinite(array).all():
        raise UnusableError("not-finite", "it contains NaN or infinite values")
    with np.errstate(over="ignore"):
        # A copy, because a view would keep its file open until the shard is full.
        stored = np.array(array, spec.read_dtype, order="C")
    if not np.isfinite(stored).all():
        advice = ": import with --dtype float32" if spec.dtype == "float16" else ""
        raise UnusableError(
            "overflow",
            f"its value {np.abs(array).max():g} is too large for {spec.read_dtype}{advice}",
        )
    return stored


def hash_of(array: Array) -> str:
    """Return the hash of the dtype, the shape and the values of an array."""
    sha256 = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
