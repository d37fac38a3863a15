"""The store formats: a file each, and a line each in ``FORMATS``."""

from collections.abc import Callable

from ..errors import CacheError
from .hdf5 import Hdf5Format
from .store_format import COMPRESSIONS, StoreFormat
from .zarr import ZarrFormat

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "StoreFormat",
    "check_form",
    "finders",
    "format_of",
    "store_of",
]

FORMATS: dict[str, StoreFormat] = {"zarr": ZarrFormat(), "hdf5": Hdf5Format()}

finders: list[Callable[[], object]] = []
"""Called for a shard whose suffix no format has; each may add formats to ``FORMATS``."""


def check_form(store: str, compression: str) -> None:
    """Raise ``CacheError`` if there is no such format or compression."""
    for kind, name, known in (
        ("store", store, FORMATS),
        ("compression", compression, COMPRESSIONS),
    ):
        if name not in known:
            raise CacheError(f"there is no {kind} '{name}': choose one of {', '.join(known)}")


def store_of(shard: str) -> str:
    """Return the key in ``FORMATS`` of a shard's format, which the suffix of its name gives.

    Raises:
        CacheError: this version of mser does not have the format.
    """
    suffix = "".join(shard.partition(".")[1:])
    for find in (lambda: None, *finders):
        find()
        for store, store_format in FORMATS.items():
            if suffix == store_format.suffix:
                return store
    raise CacheError(
        f"shard {shard} is in a format that is not known here: install the package of its format "
        "or the version of mser that wrote it, or name its code once, as in 'mser list formats "
        "file.py:Class'"
    )


def format_of(shard: str) -> StoreFormat:
    """Return the format of a shard; errors as for :func:`store_of`."""
    return FORMATS[store_of(shard)]
