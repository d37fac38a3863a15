"""What an array must be to be stored as the hidden states of one utterance."""

import hashlib

import numpy as np

from ...cache import EntrySpec
from .arrays import Array, UnusableError


def hidden_states(array: Array) -> Array:
    """Return an array as (layers, frames, dim).

    Raises:
        UnusableError: it is not floating point, of another shape, or has no frame.
    """
    if array.dtype.kind != "f":
        raise UnusableError("not-float", f"it holds {array.dtype} and no floating-point numbers")
    if array.ndim not in (2, 3):
        raise UnusableError(
            "shape",
            f"its shape is {array.shape} and neither (frames, dim) nor (layers, frames, dim)",
        )
    if not array.size:
        raise UnusableError("empty", f"its shape is {array.shape}, which holds no frame")
    return array if array.ndim == 3 else array[np.newaxis]


def as_stored(array: Array, spec: EntrySpec) -> Array:
    """Return a copy of (layers, frames, dim) as the entry stores it.

    Raises:
        UnusableError: its form is not the entry's, or a number is not finite in the entry's dtype.
    """
    layers, _, dim = array.shape
    if (layers, dim) != (len(spec.layers), spec.dim):
        raise UnusableError(
            "shape",
            f"it has {layers} layers {dim} wide, where most have {len(spec.layers)} "
            f"layers {spec.dim} wide",
        )
    if not np.isfinite(array).all():
        raise UnusableError("not-finite", "its numbers are not all finite")
    with np.errstate(over="ignore"):
        # A copy: a view would keep its file open until the shard is full.
        stored = np.array(array, spec.dtype, order="C")
    if not np.isfinite(stored).all():
        advice = ": import with --dtype float32" if spec.dtype == "float16" else ""
        raise UnusableError(
            "overflow",
            f"{np.abs(array).max():g} does not fit {spec.dtype}{advice}",
        )
    return stored


def hash_of(array: Array) -> str:
    """Hash the type, the shape and the numbers of an array."""
    sha256 = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
