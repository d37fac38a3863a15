"""The feature store: ragged arrays by id, exact, shared and safe to kill.

It knows arrays, ids and bytes. It has never heard of a model, a corpus, Dask or a head.
"""

from .entry import Entry
from .errors import CacheError
from .feature_cache import FeatureCache
from .identity import EntrySpec, digest
from .maintenance.convert import convert
from .maintenance.gc import collect_garbage
from .maintenance.listing import info, listing
from .maintenance.verify import verify, verify_all
from .quarantine import Quarantined
from .shard import COMPRESSIONS, FORMATS, UtteranceFeatures
from .writer import EntryWriter

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "CacheError",
    "Entry",
    "EntrySpec",
    "EntryWriter",
    "FeatureCache",
    "Quarantined",
    "UtteranceFeatures",
    "collect_garbage",
    "convert",
    "digest",
    "info",
    "listing",
    "verify",
    "verify_all",
]
