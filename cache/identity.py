"""The identity of an entry: its names, and the key of everything that changes its numbers."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import DTYPES, read_dtype, stored_dtype
from .errors import CacheError

ENTRY_FORMAT = 1
KEY_LENGTH = 12
POOLED = "pooled"
"""The key of an identity that marks pooled features; see :mod:`.pooled`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class EntrySpec:
    """The identity of an entry, and the form of its arrays.

    ``identity`` holds everything that changes the numbers, as JSON values; two entries with equal
    identities hold equal features. ``layers`` are the encoder's own layer numbers, in the order in
    which they are stored; ``dim`` is their width; ``dtype`` is one of ``DTYPES``.
    """

    dataset: str
    modality: str
    encoder: str
    identity: Mapping[str, Any]
    layers: tuple[int, ...]
    dim: int
    dtype: str

    def checked(self) -> "EntrySpec":
        """Return the spec if its fields are valid, or raise ``ValueError``."""
        numbers = (self.dim, *self.layers)
        texts = (self.dataset, self.modality, self.encoder, self.dtype)
        if not all(type(text) is str for text in texts):
            raise ValueError("a name is not a text")
        "".join(texts).encode()  # raises if a name cannot be written to a file
        checked_name(self.modality)
        if not (self.layers and self.dim and all(type(n) is int and n >= 0 for n in numbers)):
            raise ValueError(f"layers {self.layers} of width {self.dim}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype}")
        if not isinstance(self.identity, Mapping):
            raise ValueError("the identity is not an object")
        return self

    @property
    def key(self) -> str:
        """12 hexadecimal digits: the hash of the identity, the arrays' form and the format."""
        return digest(
            {
                "format": ENTRY_FORMAT,
                "modality": self.modality,
                "identity": self.identity,
                "layers": list(self.layers),
                "dim": self.dim,
                "dtype": self.dtype,
            }
        )

    @property
    def folder(self) -> str:
        """The entry's folder, relative to the root of the cache."""
        name = f"{self.modality}-{name_of_encoder(self.encoder)}-{self.key}"
        return f"{checked_name(self.dataset)}/{name}"

    @property
    def pooled_from(self) -> str | None:
        """The key of the entry that these features were pooled from; ``None`` for other entries."""
        return str(self.identity.get("key")) if POOLED in self.identity else None

    @property
    def bytes_per_frame(self) -> int:
        """Size of one frame in all layers, uncompressed, in bytes."""
        return len(self.layers) * self.dim * stored_dtype(self.dtype).itemsize

    @property
    def read_dtype(self) -> str:
        """The dtype that a reader gets: ``float16``, or ``float32`` for all other dtypes."""
        return read_dtype(self.dtype)

    @property
    def read_bytes_per_frame(self) -> int:
        """Size of one frame in all layers as a reader gets it, in bytes."""
        return len(self.layers) * self.dim * np.dtype(self.read_dtype).itemsize


def digest(value: object) -> str:
    """Return the hash of a JSON value, 12 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def can_be_name(name: str) -> bool:
    """Return whether ``name`` is a plain folder name and not a path."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """Return ``name`` if it is a plain folder name and not a path, or raise ``CacheError``."""
    if not can_be_name(name):
        raise CacheError(
            f"{name!r} is not a valid name of a dataset: use letters, digits, '.', '_' and '-'"
        )
    return name


def name_of_encoder(encoder: str) -> str:
    """Return the part of an entry's name that names the encoder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", encoder).strip(".-") or "encoder"


def identity_differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value of ``expected`` that ``actual`` does not have."""
    return [
        f"{name} is {actual.get(name)!r} and not {value!r}"
        for name, value in expected.items()
        if actual.get(name) != value
    ]
