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
    from .pipeline.encoders import FeatureExtractor, load_encoder
    from .pipeline.evaluation.compare import compare
    from .pipeline.extract import ExtractSettings, extract
    from .pipeline.feature_cache import FeatureCache
    from .pipeline.runs.evaluate import evaluate
    from .pipeline.runs.loaded_run import load_run, train_head
    from .pipeline.runs.predict import predict
    from .pipeline.runs.predict_many import predict_many
    from .pipeline.runs.report import report
    from .pipeline.train import TrainSettings
    from .pipeline.train.head_plugins import build_head

__version__ = "0.1.0"

_HOME = {
    "AmbiguousEntryError": ".cache",
    "CacheError": ".cache",
    "DamagedError": ".cache",
    "Entry": ".cache",
    "ExtractSettings": ".pipeline.extract",
    "FeatureCache": ".pipeline.feature_cache",
    "FeatureExtractor": ".pipeline.encoders",
    "NotFoundError": ".cache",
    "TrainSettings": ".pipeline.train",
    "UnknownUtteranceError": ".cache",
    "UtteranceDataset": ".cache.torch_dataset",
    "build_head": ".pipeline.train.head_plugins",
    "compare": ".pipeline.evaluation.compare",
    "evaluate": ".pipeline.runs.evaluate",
    "extract": ".pipeline.extract",
    "load_encoder": ".pipeline.encoders",
    "load_run": ".pipeline.runs.loaded_run",
    "pad": ".cache.torch_dataset",
    "predict": ".pipeline.runs.predict",
    "predict_many": ".pipeline.runs.predict_many",
    "report": ".pipeline.runs.report",
    "train_head": ".pipeline.runs.loaded_run",
}

__all__ = [
    "AmbiguousEntryError",
    "CacheError",
    "DamagedError",
    "Entry",
    "ExtractSettings",
    "FeatureCache",
    "FeatureExtractor",
    "NotFoundError",
    "TrainSettings",
    "UnknownUtteranceError",
    "UtteranceDataset",
    "__version__",
    "build_head",
    "compare",
    "evaluate",
    "extract",
    "load_encoder",
    "load_run",
    "pad",
    "predict",
    "predict_many",
    "report",
    "train_head",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mser' has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
