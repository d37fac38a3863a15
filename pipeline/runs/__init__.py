"""Evaluate, compare in tables, predict with, and report on finished runs."""

from .ablation import Ablation, ablate
from .evaluate import Evaluation, evaluate

__all__ = ["Ablation", "Evaluation", "ablate", "evaluate"]
