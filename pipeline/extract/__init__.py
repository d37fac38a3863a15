"""Stage one: corpora, audio and text, frozen encoders, shards, on Dask."""

from ..encoders import load_encoder
from .runner import extract
from .settings import ExtractSettings
from .summary import Summary

__all__ = ["ExtractSettings", "Summary", "extract", "load_encoder"]
