"""mser: cached hidden states of frozen speech and text encoders, and light heads trained on them.

Each name is imported when it is first used, so that ``import mser`` and ``mser --help`` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import (
        AmbiguousEntryError,
        CacheError,
        DamagedError,
        Entry,
        NotFoundError,
        UnknownUtteranceError,
    )
    from .cache.torch_dataset import UtteranceDataset, pad
    from .pipeline.encoders import FeatureExtractor
    from .pipeline.extract import extract, load_encoder
    from .pipeline.feature_cache import FeatureCache
    from .pipeline.train import train_head
    from .pipeline.train.head_plugins import build_head

__version__ = "0.1.0"

_HOME = {
    "AmbiguousEntryError": ".cache",
    "CacheError": ".cache",
    "DamagedError": ".cache",
    "Entry": ".cache",
    "FeatureCache": ".pipeline.feature_cache",
    "FeatureExtractor": ".pipeline.encoders",
    "NotFoundError": ".cache",
    "UnknownUtteranceError": ".cache",
    "UtteranceDataset": ".cache.torch_dataset",
    "build_head": ".pipeline.train.head_plugins",
    "extract": ".pipeline.extract",
    "load_encoder": ".pipeline.extract",
    "pad": ".cache.torch_dataset",
    "train_head": ".pipeline.train",
}

__all__ = [
    "AmbiguousEntryError",
    "CacheError",
    "DamagedError",
    "Entry",
    "FeatureCache",
    "FeatureExtractor",
    "NotFoundError",
    "UnknownUtteranceError",
    "UtteranceDataset",
    "__version__",
    "build_head",
    "extract",
    "load_encoder",
    "pad",
    "train_head",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mser' has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
