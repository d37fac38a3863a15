"""What is done with finished runs."""

from .ablation import Ablation, ablate
from .evaluate import Evaluation, evaluate

__all__ = ["Ablation", "Evaluation", "ablate", "evaluate"]
