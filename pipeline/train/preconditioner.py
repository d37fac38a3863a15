"""The variables in which L-BFGS solves a logistic regression.

The inputs of a probe are strongly correlated, for example neighbouring layers of an encoder, and
L-BFGS alone would need hundreds of steps. So it works in variables in which the Hessian is close
to the identity: with the singular values σ and vectors V of n inputs, the Hessian is about
V (c σ²/n + λ) Vᵀ, and W = Z M with M = V (c σ²/n + λ)^(-1/2) Vᵀ. This changes the path to the
minimum, not the minimum.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_RANK = 256  # directions of the inputs in which the variables are scaled one by one


@dataclass(frozen=True)
class Scaling:
    """The symmetric matrix M of a strength, as (r,) scales of directions and one of all others."""

    vectors: Tensor
    """(width, r) the directions, orthonormal."""
    scales: Tensor
    """(r,) those of the directions."""
    other: float
    """The scale of every direction that is orthogonal to these."""

    def apply(self, rows: Tensor) -> Tensor:
        """Return rows (classes, width) times M."""
        along = rows @ self.vectors
        return self.other * rows + (along * (self.scales - self.other)) @ self.vectors.T

    def inverse(self) -> "Scaling":
        """Return the inverse of M."""
        return Scaling(self.vectors, 1 / self.scales, 1 / self.other)


@dataclass(frozen=True)
class Directions:
    """The directions of inputs: the main ones, or of few inputs all of them."""

    inputs: Tensor
    """(n, width) floating."""

    @property
    def all_found(self) -> bool:
        """Whether these are all directions. Only main directions serve for a part of the inputs."""
        return min(self.inputs.shape) <= 2 * _RANK

    def scaling(self, curvature: float, strength: float) -> Scaling:
        """Return M for the curvature c of the loss and the strength λ."""
        vectors, variances, rest = self._found
        scales = (curvature * variances + strength).rsqrt()
        return Scaling(vectors, scales, (curvature * rest + strength) ** -0.5)

    @cached_property
    def _found(self) -> tuple[Tensor, Tensor, float]:
        """The directions (width, r), their variances (r,), and that of any other direction."""
        n, width = self.inputs.shape
        if self.all_found:
            _, singular, rows = torch.linalg.svd(self.inputs, full_matrices=False)
            vectors = rows.T
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the directions are random, and must be the same each time
                _, singular, vectors = torch.svd_lowrank(self.inputs, q=_RANK, niter=1)
        variances = singular.square() / n
        left = float(self.inputs.square().sum(dtype=torch.float64)) / n - float(variances.sum())
        return vectors, variances, max(0.0, left) / max(1, width - len(variances))
