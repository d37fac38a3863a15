"""Stage two: cached hidden states, a protocol, a head, a run folder."""

from .presets import combined, settings_of
from .presets import preset as preset_of
from .run import Run
from .runner import train_head, train_heads
from .settings import TrainSettings

__all__ = [
    "Run",
    "TrainSettings",
    "combined",
    "preset_of",
    "settings_of",
    "train_head",
    "train_heads",
]
