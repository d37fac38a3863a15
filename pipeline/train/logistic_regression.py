"""Logistic regression by a quasi-Newton method, for the heads whose loss is convex.

Minimises, over the weights W (classes, width) and the biases b (classes,),

    mean_i a_i · CE(y_i, W x_i + b) + λ/2 · ‖W‖²,

where y_i is a class or the shares of several, and a_i weights a class by its frequency,

with L-BFGS (Liu & Nocedal, 1989) of scipy, from strong to weak λ, each from the solution before,
in the variables of :mod:`.preconditioner`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor

from .preconditioner import Directions

_ITERATIONS = 500
_GRADIENT = 3e-5  # the largest derivative, in the scaled variables, at which L-BFGS stops
NEVER = -1e4
"""The bias of a class without an utterance."""


@dataclass(frozen=True)
class LinearModel:
    """The weights (classes, width) and biases (classes,) of a linear classifier."""

    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes) of inputs (n, width)."""
        return x @ self.weight.T + self.bias


@dataclass(frozen=True)
class LogisticRegression:
    """The problem of a training part."""

    inputs: Tensor
    """(n, width) floating; the calculation has this dtype and device."""
    labels: Tensor
    """(n,) int64, or (n, classes) floating: the shares of the classes, which sum to 1; with
    ``several``, 1 for the classes of an utterance and 0 for the others."""
    n_classes: int
    """The number of classes; a class without an utterance is never predicted."""
    balanced: bool = False
    """Whether a class weighs by the inverse of its frequency."""
    several: bool = False
    """Whether an utterance has several classes: then CE is the sum over the classes of the binary
    cross-entropy of y_ic and σ(x), a regression for each class."""
    directions: Directions | None = None
    """The main directions of these inputs, or of inputs that include them; found by default."""

    def path(self, strengths: Sequence[float]) -> Iterator[LinearModel]:
        """Yield the solution for each strength λ, which should go from strong to weak."""
        weight = self.inputs.new_zeros(len(self._classes), self.inputs.shape[1])
        bias = self._prior.logit(1 / (2 * len(self.inputs))) if self.several else self._prior.log()
        for strength in strengths:
            weight, bias = self._minimum(strength, weight, bias)
            yield self._for_all_classes(weight, bias)

    def _minimum(self, strength: float, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        from scipy.optimize import minimize  # noqa: PLC0415 -- a second to import

        curvature = float((self._prior * (1 - self._prior)).mean())  # of the cross-entropy
        scaling = self._directions.scaling(curvature, strength)
        n_classes, width = weight.shape

        def split(flat: NDArray[Any]) -> tuple[Tensor, Tensor]:
            point = torch.from_numpy(flat).to(self.inputs)
            rows = point[: n_classes * width].view(n_classes, width)
            return scaling.apply(rows), point[n_classes * width :]

        def joined(rows: Tensor, offsets: Tensor) -> NDArray[Any]:
            flat: NDArray[Any] = torch.cat([rows.flatten(), offsets]).double().cpu().numpy()
            return flat

        def loss_and_gradient(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            weight, bias = split(flat)
            logits = (self.inputs @ weight.T).T.contiguous() + bias[:, None]
            if self.several:
                losses = F.binary_cross_entropy_with_logits(
                    logits, self._targets, reduction="none"
                ).sum(dim=0)
                error = (logits.sigmoid() - self._targets) / len(losses)
            else:
                log_p = F.log_softmax(logits, dim=0)
                losses = -(self._targets * log_p).sum(dim=0)
                error = (log_p.exp() * self._weights - self._targets) / len(losses)
            penalty = strength / 2 * float(weight.double().square().sum())
            of_weight = scaling.apply(error @ self.inputs + strength * weight)
            return float(losses.double().mean()) + penalty, joined(of_weight, error.sum(dim=1))

        precision = torch.finfo(self.inputs.dtype).eps
        # The vectors of L-BFGS are short: more threads would only wait for each other.
        with _blas().limit(limits=1, user_api="blas"):
            found = minimize(
                loss_and_gradient,
                joined(scaling.inverse().apply(weight), bias),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": _ITERATIONS, "gtol": _GRADIENT, "ftol": 10 * precision},
            )
        return split(found.x)

    @cached_property
    def _directions(self) -> Directions:
        return self.directions or Directions(self.inputs)

    @cached_property
    def _classes(self) -> Tensor:
        """The classes that occur, sorted."""
        if self.several:
            return torch.arange(self.n_classes, device=self.labels.device)
        if self.labels.dim() == 2:
            return self.labels.sum(dim=0).nonzero().flatten()
        classes: Tensor = self.labels.unique()  # type: ignore[no-untyped-call]
        return classes

    @cached_property
    def _targets(self) -> Tensor:
        """(classes, n) the shares of the classes that occur, times the weights of the classes."""
        if self.labels.dim() == 2:
            shares = self.labels[:, self._classes].to(self.inputs)
        else:
            shares = (self.labels[:, None] == self._classes).to(self.inputs)
        if self.balanced:
            counts = shares.sum(dim=0)
            shares = shares * (len(shares) / len(counts) / counts)
        return shares.T.contiguous()

    @cached_property
    def _weights(self) -> Tensor:
        """(n,) the weights of the utterances; their mean is 1."""
        return self._targets.sum(dim=0)

    @cached_property
    def _prior(self) -> Tensor:
        """(classes,) the weighted share of each class that occurs."""
        return self._targets.mean(dim=1)

    def _for_all_classes(self, weight: Tensor, bias: Tensor) -> LinearModel:
        weights = weight.new_zeros(self.n_classes, weight.shape[1])
        biases = bias.new_full((self.n_classes,), NEVER)
        if self.several:
            return LinearModel(weight, bias)
        # A number that is added to all biases changes nothing: their mean is 0, as scikit-learn's.
        weights[self._classes], biases[self._classes] = weight, bias - bias.mean()
        return LinearModel(weights, biases)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
