"""Logistic regression by a quasi-Newton method, for the heads whose loss is convex.

Minimises, over the weights W (classes, width) and the biases b (classes,),

    mean_i a_i · CE(y_i, W x_i + b) + λ/2 · ‖W‖²,

where y_i is a class or the shares of several, and a_i weights a class by its frequency,

with L-BFGS (Liu & Nocedal, 1989) of scipy, from strong to weak λ, each from the solution before.
The inputs of a probe are strongly correlated, for example neighbouring layers of an encoder, and
L-BFGS alone would need hundreds of steps. So it works in variables in which the Hessian is close
to the identity: with the singular values σ and vectors V of the inputs, the Hessian is about
V (c σ²/n + λ) Vᵀ, and W = Z M with M = V (c σ²/n + λ)^(-1/2) Vᵀ. This changes the path to the
minimum, not the minimum.
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

_RANK = 256  # directions of the inputs in which the variables are scaled one by one
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
class _Scaling:
    """The symmetric matrix M of a strength, as (r,) scales of directions and one of all others."""

    vectors: Tensor
    scales: Tensor
    other: float

    def apply(self, rows: Tensor) -> Tensor:
        """Return rows (classes, width) times M."""
        along = rows @ self.vectors
        return self.other * rows + (along * (self.scales - self.other)) @ self.vectors.T

    def inverse(self) -> "_Scaling":
        return _Scaling(self.vectors, 1 / self.scales, 1 / self.other)


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

    def path(self, strengths: Sequence[float]) -> Iterator[LinearModel]:
        """Yield the solution for each strength λ, which should go from strong to weak."""
        weight = self.inputs.new_zeros(len(self._classes), self.inputs.shape[1])
        bias = self._prior.logit(1 / (2 * len(self.inputs))) if self.several else self._prior.log()
        for strength in strengths:
            weight, bias = self._minimum(strength, weight, bias)
            yield self._for_all_classes(weight, bias)

    def _minimum(self, strength: float, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        from scipy.optimize import minimize  # noqa: PLC0415 -- a second to import

        scaling = self._scaling(strength)
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
            logits = self.inputs @ weight.T + bias
            if self.several:
                losses = F.binary_cross_entropy_with_logits(
                    logits, self._targets, reduction="none"
                ).sum(dim=1)
                error = (logits.sigmoid() - self._targets) / len(logits)
            else:
                log_p = F.log_softmax(logits, dim=1)
                losses = -(self._targets * log_p).sum(dim=1)
                error = (log_p.exp() * self._weights[:, None] - self._targets) / len(log_p)
            penalty = strength / 2 * float(weight.double().square().sum())
            of_weight = scaling.apply(error.T @ self.inputs + strength * weight)
            return float(losses.double().mean()) + penalty, joined(of_weight, error.sum(dim=0))

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
        """(n, classes) the shares of the classes that occur, times the weights of the classes."""
        if self.labels.dim() == 2:
            shares = self.labels[:, self._classes].to(self.inputs)
        else:
            shares = (self.labels[:, None] == self._classes).to(self.inputs)
        if not self.balanced:
            return shares
        counts = shares.sum(dim=0)
        return shares * (len(shares) / len(counts) / counts)

    @cached_property
    def _weights(self) -> Tensor:
        """(n,) the weights of the utterances; their mean is 1."""
        return self._targets.sum(dim=1)

    @cached_property
    def _prior(self) -> Tensor:
        """(classes,) the weighted share of each class that occurs."""
        return self._targets.sum(dim=0) / len(self._targets)

    def _scaling(self, strength: float) -> _Scaling:
        vectors, variances, rest = self._directions
        curvature = float((self._prior * (1 - self._prior)).mean())  # of the cross-entropy
        scales = (curvature * variances + strength).rsqrt()
        return _Scaling(vectors, scales, (curvature * rest + strength) ** -0.5)

    @cached_property
    def _directions(self) -> tuple[Tensor, Tensor, float]:
        """The main directions (width, r), their variances (r,), and that of any other one."""
        n, width = self.inputs.shape
        if min(n, width) <= 2 * _RANK:
            _, singular, rows = torch.linalg.svd(self.inputs, full_matrices=False)
            vectors = rows.T
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the directions are random, and must be the same each time
                _, singular, vectors = torch.svd_lowrank(self.inputs, q=_RANK, niter=1)
        variances = singular.square() / n
        left = float(self.inputs.square().sum(dtype=torch.float64)) / n - float(variances.sum())
        return vectors, variances, max(0.0, left) / max(1, width - len(variances))

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
