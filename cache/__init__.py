"""The feature store: arrays of different lengths by id, exact, shared and safe to kill.

It works with arrays, ids and bytes only, and does not depend on models, corpora, Dask or heads.
"""

from .dtypes import DTYPES
from .entry import Entry
from .errors import (
    AmbiguousEntryError,
    CacheError,
    DamagedError,
    NotFoundError,
    UnknownUtteranceError,
)
from .feature_cache import FeatureCache
from .formats import COMPRESSIONS, FORMATS
from .formats.arrays import release_maps
from .identity import EntrySpec, digest
from .maintenance.convert import convert
from .maintenance.gc import collect_garbage
from .maintenance.listing import info, listing
from .maintenance.verify import verify, verify_all
from .pooled import missing_pooled, pooled_entry
from .quarantine import Quarantined
from .scale import calibration_ids
from .shard import UtteranceFeatures
from .writer import EntryWriter

__all__ = [
    "COMPRESSIONS",
    "DTYPES",
    "FORMATS",
    "AmbiguousEntryError",
    "CacheError",
    "DamagedError",
    "Entry",
    "EntrySpec",
    "EntryWriter",
    "FeatureCache",
    "NotFoundError",
    "Quarantined",
    "UnknownUtteranceError",
    "UtteranceFeatures",
    "calibration_ids",
    "collect_garbage",
    "convert",
    "digest",
    "info",
    "listing",
    "missing_pooled",
    "pooled_entry",
    "release_maps",
    "verify",
    "verify_all",
]
