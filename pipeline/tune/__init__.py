"""Search for the settings of a training, on validation parts only."""

from .search import tune
from .tuning import Tuning

__all__ = ["Tuning", "tune"]
