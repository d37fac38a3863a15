"""Ridge regression in closed form, for linear heads whose targets are numbers.

Minimises, over the weights W (attributes, width) and the biases b (attributes,),

    mean_i 1/2 ‖W x_i + b - y_i‖² + λ/2 ‖W‖²,

(Hoerl & Kennard, Technometrics 12, 1970), which is scikit-learn's ``Ridge`` with alpha = n λ. With
the centred inputs X (n, width) and targets Y, W = Yᵀ X (XᵀX + n λ)⁻¹ = Yᵀ (XXᵀ + n λ)⁻¹ X, and one
decomposition of the smaller of the two products gives the solutions for all λ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .logistic_regression import LinearModel


@dataclass(frozen=True)
class RidgeRegression:
    """The problem of a training part."""

    inputs: Tensor
    """(n, width) floating; the calculation is in float64, on their device."""
    targets: Tensor
    """(n, attributes) floating, on the same device."""

    def path(self, strengths: Sequence[float]) -> Iterator[LinearModel]:
        """Yield the solution for each strength λ, in the dtype of the inputs."""
        mean_x, x = self._centred
        y = self.targets.double()
        mean_y = y.mean(dim=0)
        values, vectors = self._decomposition
        n, width = x.shape
        along = (y - mean_y).T @ (x @ vectors if width <= n else vectors)
        for strength in strengths:
            scaled = (along / (values + n * strength)) @ vectors.T
            weight = scaled if width <= n else scaled @ x
            bias = mean_y - weight @ mean_x
            yield LinearModel(weight.to(self.inputs.dtype), bias.to(self.inputs.dtype))

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        x = self.inputs.double()
        mean = x.mean(dim=0)
        return mean, x - mean

    @cached_property
    def _decomposition(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues, at least 0, and the vectors of the smaller product."""
        _, x = self._centred
        product = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
        values, vectors = torch.linalg.eigh(product)
        return values.clamp(min=0), vectors
