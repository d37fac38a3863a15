"""Logit adjustment after the training, with a strength that is chosen on the validation part.

Menon et al., "Long-tail learning via logit adjustment" (ICLR 2021), the post-hoc form: the class
with the largest f_c - τ log π_c is predicted, where f are the outputs of the head and π_c is the
share of the class in the training part. At τ = 0 the most probable class is predicted; τ = 1 gives
each class the same share, which minimises the balanced error. A metric between the two, such as the
weighted F1, is highest between them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...heads.objectives import Classes, Objective
from ..corpora import Utterance
from ..targets import Targets
from .objectives import OutputScorer, class_counts, target_tensor

STRENGTHS = tuple(tenth / 10 for tenth in range(11))
"""The values of τ that are compared."""


def adjust(
    objective: Objective,
    targets: Targets,
    train: Sequence[Utterance],
    rank: Callable[[OutputScorer], tuple[float, float]],
) -> float:
    """Set the offsets of an objective's classes to those with the highest rank; return τ.

    ``rank`` compares scorers by the outputs of the validation part: larger is better. Of equal
    ones, the smallest τ is chosen. A class that does not occur in the training part has offset 0.
    """
    known = target_tensor(targets, train)
    parts = [part for part in objective.modules() if isinstance(part, Classes)]
    shares = [_log_shares(class_counts(part, known)) for part in parts]

    def scorer(strength: float) -> OutputScorer:
        for part, log_shares in zip(parts, shares, strict=True):
            part.offset = -strength * log_shares
        return OutputScorer.of(objective, targets)

    best = max(STRENGTHS, key=lambda strength: rank(scorer(strength)))
    scorer(best)
    return best


def _log_shares(counts: Tensor) -> Tensor:
    return torch.where(counts > 0, counts / counts.sum(), 1.0).log()
