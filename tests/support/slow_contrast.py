"""Gaussians, their distance, and InfoNCE in Python floats: the expected values of tests."""

import math
from collections.abc import Callable, Sequence

from mser.heads.mgcma.gaussian import Gaussian
from mser.tests.support.slow_layers import double


def gaussians(seed: int, n: int, width: int = 3) -> Gaussian:
    return Gaussian(double(seed, n, width), double(seed + 1, n, width).exp())


def distance(a: Gaussian, i: int, b: Gaussian, j: int) -> float:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += sum((float(p) - float(q)) ** 2 for p, q in zip(x[i], y[j], strict=True))
    return total


def slow_info_nce(
    score: Callable[[int, int], float],
    kept: Sequence[int],
    repeated: Callable[[int, int], bool] = lambda i, j: False,
) -> float:
    """Return the mean of both directions; score(i, j) includes the temperature."""
    loss = 0.0
    for i in kept:
        rest = [j for j in kept if j == i or not repeated(i, j)]
        for others in ([score(i, j) for j in rest], [score(j, i) for j in rest]):
            top = max(others)  # the probability of a distant pair can underflow
            total = sum(math.exp(other - top) for other in others)
            loss -= (score(i, i) - top - math.log(total)) / (2 * len(kept))
    return loss
