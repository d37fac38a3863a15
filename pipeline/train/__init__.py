"""Stage two: cached hidden states, a protocol, a head, a run folder."""

from .settings import TrainSettings
from .training import Run, train_head

__all__ = ["Run", "TrainSettings", "train_head"]
