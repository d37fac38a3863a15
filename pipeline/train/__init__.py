"""Stage two: cached hidden states, a protocol, a head, a run folder."""

from .ablation import Ablation, ablate
from .evaluation import Evaluation, evaluate
from .presets import combined, settings_of
from .presets import preset as preset_of
from .run import Run
from .settings import TrainSettings
from .training import train_head, train_heads

__all__ = [
    "Ablation",
    "Evaluation",
    "Run",
    "TrainSettings",
    "ablate",
    "combined",
    "evaluate",
    "preset_of",
    "settings_of",
    "train_head",
    "train_heads",
]
