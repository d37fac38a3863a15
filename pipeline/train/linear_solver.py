"""Training of a linear head: logistic or ridge regression with L2 chosen on validation.

The result depends on no learning rate, no number of epochs and no seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...heads.objectives import Objective
from ..corpora import Utterance
from .linear_paths import linear_path, strengths_of
from .logistic_regression import NEVER, LinearModel
from .preconditioner import Directions

SMALL_VALIDATION = 500
"""With fewer validation utterances, the strength is chosen by cross-validation."""

_FEW = 2000  # utterances: the time of the change of basis grows with their square
_SMALL = 2**20  # numbers in the inputs: float64 then takes little time
_FOLDS = 10
_PATIENCE = 5  # strengths without a better score

Rank = tuple[float, float]


@dataclass(frozen=True)
class ChosenModel:
    """The model of the strength that scored best on validation."""

    model: LinearModel
    """The weights and biases."""
    number: int
    """The number of the strength in the order in which strengths are tried, from 1 on."""
    strength: float
    """The strength λ."""
    validation: dict[str, float]
    """The scores on the validation part, or of the cross-validation."""
    held_out: tuple[Tensor, list[int]]
    """Outputs of models that have not seen these rows, (rows, outputs), and the rows."""


@dataclass(frozen=True)
class LinearProblem:
    """The inputs of the train and the validation part, and how strengths are compared."""

    inputs: Tensor
    """(n, width) floating: the train part, then the validation part."""
    targets: Tensor
    """Those of the objective, for n utterances."""
    n_train: int
    """The number of utterances in the train part."""
    objective: Objective
    """What is minimised."""
    groups: Sequence[str]
    """(n,) what cross-validation keeps whole; see :func:`whole_groups`."""
    balanced: bool
    """Whether a class weighs by the inverse of its frequency."""
    score: Callable[[Tensor, Sequence[int]], tuple[dict[str, float], Rank]]
    """Outputs and rows → the scores of these rows, and what is compared: larger is better."""

    def solve(
        self,
        strengths: Sequence[float] | None = None,
        log: Callable[[int, float, dict[str, float]], object] = lambda *_: None,
    ) -> ChosenModel:
        """Fit each strength, choose the best on validation, and return its model.

        A validation part of fewer than ``SMALL_VALIDATION`` utterances is too small to choose by.
        Then the strength is chosen by cross-validation over both parts, in which groups stay whole,
        and the model is the mean of the models of the best strength. With a larger validation part
        the model of the best strength is fitted again to both parts.

        Args:
            strengths: the strengths λ, from strong to weak; by default those of the objective.
            log: called with the number of a strength, the strength and its validation scores.
        """
        n, width = self.inputs.shape
        if n < width and n <= _FEW:
            # The weights of a minimum with L2 are sums of inputs: as wide a space as there are
            # utterances holds them, in a basis that changes neither lengths nor products.
            basis, coordinates = torch.linalg.qr(self.inputs.T)
            chosen = replace(self, inputs=coordinates.T).solve(strengths, log)
            weight = chosen.model.weight @ basis.T
            return replace(chosen, model=replace(chosen.model, weight=weight))
        if self.inputs.dtype == torch.float32 and self.inputs.numel() <= _SMALL:
            return self._solved_in_double(strengths, log)
        strengths = strengths_of(self.objective) if strengths is None else strengths
        splits = self._splits()
        held_out = [row for _, rows in splits for row in rows]
        best: tuple[Rank, ChosenModel] | None = None
        paths = [self._path(rows, strengths) for rows, _ in splits]
        for number, models in enumerate(zip(*paths, strict=True), 1):
            logits = [
                m.logits(self.inputs[rows]) for m, (_, rows) in zip(models, splits, strict=True)
            ]
            outputs, strength = torch.cat(logits), strengths[number - 1]
            validation, rank = self.score(outputs, held_out)
            log(number, strength, validation)
            if best is None or rank > best[0]:
                model, known = _mean(models), (outputs, held_out)
                best = rank, ChosenModel(model, number, strength, validation, known)
            elif number - best[1].number >= _PATIENCE:
                break
        assert best is not None  # noqa: S101 -- there is at least one strength
        chosen = best[1]
        if len(splits) > 1:
            return chosen
        (model,) = self._path(range(len(self.targets)), [chosen.strength])
        return replace(chosen, model=model)

    def _solved_in_double(
        self, strengths: Sequence[float] | None, log: Callable[..., object]
    ) -> ChosenModel:
        """Solve in float64: in float32, weak strengths end before the minimum."""

        def score(outputs: Tensor, rows: Sequence[int]) -> tuple[dict[str, float], Rank]:
            return self.score(outputs.float(), rows)

        exact = replace(self, inputs=self.inputs.double(), score=score)
        chosen = exact.solve(strengths, log)
        model = LinearModel(chosen.model.weight.float(), chosen.model.bias.float())
        outputs, rows = chosen.held_out
        return replace(chosen, model=model, held_out=(outputs.float(), rows))

    def _splits(self) -> list[tuple[list[int], list[int]]]:
        """Return the rows to learn from and the rows to validate on, of each split."""
        rows = list(range(len(self.targets)))
        n_groups = len(set(self.groups))
        if len(rows) - self.n_train >= SMALL_VALIDATION or n_groups < 2:
            return [(rows[: self.n_train], rows[self.n_train :])]
        from sklearn.model_selection import GroupKFold  # noqa: PLC0415 -- seconds to import

        folds = GroupKFold(min(_FOLDS, n_groups))
        splits = folds.split(np.zeros(len(rows)), groups=self.groups)
        return [(learn.tolist(), validate.tolist()) for learn, validate in splits]

    @cached_property
    def _directions(self) -> Directions:
        return Directions(self.inputs)

    def _path(self, rows: Sequence[int], strengths: Sequence[float]) -> Iterator[LinearModel]:
        inputs, targets = self.inputs[rows], self.targets[rows]
        shared = None if self._directions.all_found else self._directions
        return linear_path(self.objective, inputs, targets, strengths, self.balanced, shared)


def whole_groups(train: Sequence[Utterance], validation: Sequence[Utterance]) -> list[str]:
    """Return for each utterance of both parts the group that cross-validation keeps whole.

    It is the session, else the speaker, else the dialogue: the first of these that the two parts do
    not share. Without any of them, each utterance is a group.
    """
    everything = [*train, *validation]
    for column in ("session", "speaker", "dialogue"):
        of_train, of_validation = (
            {getattr(utterance, column) for utterance in part} for part in (train, validation)
        )
        if None not in of_train | of_validation and not of_train & of_validation:
            return [getattr(utterance, column) for utterance in everything]
    return [utterance.id for utterance in everything]


def modality_scale(widths: Sequence[int]) -> Tensor:
    """Return what the inputs of each modality are multiplied by, (sum of the widths,).

    One strength of L2 for all inputs would have to suit the widest modality: a narrow one beside it
    would hardly be used. The inputs of a modality are multiplied by the root of the largest width
    over its own, so that the standardised inputs of each have the same sum of variances. With equal
    widths this changes nothing.

    Args:
        widths: those of the modalities, in the order of the inputs.
    """
    widest = max(widths)
    return torch.cat([torch.full((width,), (widest / width) ** 0.5) for width in widths])


def _mean(models: Sequence[LinearModel]) -> LinearModel:
    """Return the mean of the models; of each class, over the models that have learnt it.

    Where the only group of a class is held out, the model does not know the class.
    """
    weights = torch.stack([model.weight for model in models])
    biases = torch.stack([model.bias for model in models])
    learnt = biases != NEVER
    count = learnt.sum(dim=0).clamp(min=1)
    bias = torch.where(learnt, biases, 0.0).sum(dim=0) / count
    weight = weights.sum(dim=0) / count[:, None]  # without the class, its weights are 0
    return LinearModel(weight, torch.where(learnt.any(dim=0), bias, NEVER))
