"""The linear models of an objective for strengths of L2, from strong to weak.

- Classes and votes: multinomial logistic regression, see :mod:`.logistic_regression`.
- Several classes at once: a logistic regression for each class.
- Attributes: ridge regression of the standardised targets, see :mod:`.ridge_regression`.
- Several of these: side by side, with the same strength.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...heads.objectives import Attributes, Classes, Joined, Labels, Objective, Votes
from .logistic_regression import LinearModel, LogisticRegression
from .preconditioner import Directions
from .ridge_regression import RidgeRegression

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(2, -11, -1))
"""The strengths λ of L2 that are tried, from 10 to 1e-5, two to a decade."""

RIDGE_STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(8, -9, -1))
"""Those for attributes alone, from 1e4 to 1e-4."""


def strengths_of(objective: Objective) -> tuple[float, ...]:
    """Return the strengths that are tried."""
    return RIDGE_STRENGTHS if isinstance(objective, Attributes) else STRENGTHS


def linear_path(
    objective: Objective,
    inputs: Tensor,
    targets: Tensor,
    strengths: Sequence[float],
    balanced: bool = False,
    directions: Directions | None = None,
) -> Iterator[LinearModel]:
    """Yield the model for each strength λ.

    Args:
        objective: what is minimised; a model gives its outputs.
        inputs: (n, width) floating.
        targets: those of the objective, for n utterances, on the same device.
        strengths: from strong to weak.
        balanced: whether a class weighs by the inverse of its frequency.
        directions: the main directions of these inputs, or of inputs that include them, if known.
    """
    match objective:
        case Classes() | Votes() | Labels():
            labels = objective.classes(targets) if isinstance(objective, Classes) else targets
            several = isinstance(objective, Labels)
            weighted = balanced and not several
            problem = LogisticRegression(
                inputs, labels, objective.n_outputs, weighted, several, directions
            )
            yield from problem.path(strengths)
        case Attributes():
            yield from RidgeRegression(inputs, objective.standardised(targets)).path(strengths)
        case Joined():
            paths = [
                linear_path(part, inputs, known, strengths, balanced, directions)
                for part, known in objective.divided(targets)
            ]
            yield from map(_stacked, zip(*paths, strict=True))
        case _:
            raise TypeError(f"{type(objective).__name__} has no linear path")


def _stacked(models: Sequence[LinearModel]) -> LinearModel:
    weights, biases = zip(*((model.weight, model.bias) for model in models), strict=True)
    return LinearModel(torch.cat(weights), torch.cat(biases))
