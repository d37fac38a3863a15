"""Stage one: extract the hidden states of frozen encoders from a corpus into the cache.

The names are imported when they are first used: PyTorch takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..encoders import load_encoder
    from .runner import extract
    from .settings import ExtractSettings
    from .summary import Summary

_HOME = {
    "ExtractSettings": ".settings",
    "Summary": ".summary",
    "extract": ".runner",
    "load_encoder": "..encoders",
}

__all__ = ["ExtractSettings", "Summary", "extract", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
