"""How far the probabilities of a head agree with how often it is right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The predictions whose probability is in (low, high]; the means are in [0, 1]."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The bins that are not empty, and the expected calibration error in [0, 1]."""

    bins: tuple[Bin, ...]
    ece: float


def calibration(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS
) -> Calibration:
    """Return the reliability diagram and the ECE (Guo et al., ICML 2017, section 2 and eq. 3).

    ECE = Σ_b n_b / n · |accuracy_b - confidence_b|, over ``bins`` of equal width.

    Args:
        confidences: the probability of each predicted class.
        correct: whether each prediction is right.
        bins: the number of bins.
    """
    probability, right = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=float)
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    found, error = [], 0.0
    for index in range(bins):
        inside = number == index
        count = int(inside.sum())
        if count:
            mean, accuracy = float(probability[inside].mean()), float(right[inside].mean())
            low, high = float(edges[index]), float(edges[index + 1])
            found.append(Bin(low, high, count, mean, accuracy))
            error += count / len(probability) * abs(accuracy - mean)
    return Calibration(tuple(found), error)
