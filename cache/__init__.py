"""The feature store: ragged arrays by id, exact, shared and safe to kill.

It knows arrays, ids and bytes. It has never heard of a model, a corpus, Dask or a head.
"""

from .entry import Entry
from .errors import CacheError
from .feature_cache import FeatureCache
from .identity import EntrySpec, digest
from .quarantine import Quarantined
from .shard import COMPRESSIONS, FORMATS, Features
from .writer import EntryWriter

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "CacheError",
    "Entry",
    "EntrySpec",
    "EntryWriter",
    "FeatureCache",
    "Features",
    "Quarantined",
    "digest",
]
