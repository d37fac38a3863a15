"""Stage one: extract the hidden states of frozen encoders from a corpus into the cache."""

from ..encoders import load_encoder
from .runner import extract
from .settings import ExtractSettings
from .summary import Summary

__all__ = ["ExtractSettings", "Summary", "extract", "load_encoder"]
