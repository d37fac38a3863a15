"""The objective of a training, and the targets of its utterances as tensors."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from ...heads.objectives import Attributes, Classes, Joined, Labels, Objective, Votes
from ..corpora import Utterance
from ..evaluation.metrics import Predictions, scores
from ..evaluation.scorers import scorer_of
from ..protocols.folds import Fold
from ..targets import EMOTION, Targets, losses_of


def objective_of(targets: Targets, loss: str | None = None) -> Objective:
    """Return the objective of a training; ``loss`` is that of the settings.

    Raises:
        UsageError: no target knows the loss.
    """
    losses = losses_of(targets.names, loss)
    n_classes = len(targets.classes)
    parts: dict[str, Objective] = {}
    match targets.over_classes:
        case "emotion":
            parts["emotion"] = Classes(n_classes)
        case "votes":
            parts["votes"] = Votes(n_classes, losses["votes"])
        case "labels":
            parts["labels"] = Labels(n_classes)
    if targets.attributes:
        count = len(targets.attributes)
        parts["attributes"] = Attributes(count, losses[targets.attributes[0]])
    return next(iter(parts.values())) if len(parts) == 1 else Joined(parts)


def target_tensor(
    targets: Targets, utterances: Sequence[Utterance], context: Collection[str] = ()
) -> Tensor:
    """Return what is known of utterances: (B,) int64 classes for ``emotion``, else (B, K) float64.

    ``context`` are ids of turns that are only context; theirs are zeros.
    """
    if targets.names == EMOTION:
        number = {name: index for index, name in enumerate(targets.classes)}
        return torch.tensor([0 if u.id in context else number[str(u.label)] for u in utterances])
    rows: list[list[float]] = []
    for utterance in utterances:
        values = [] if utterance.id in context else list(targets.value(utterance))
        if values and targets.over_classes == "emotion":
            values[0] = targets.classes.index(values[0])
        rows.append(values)
    width = max(map(len, rows))
    return torch.tensor([row or [0.0] * width for row in rows], dtype=torch.float64)


def fit(objective: Objective, targets: Targets, train: Sequence[Utterance]) -> None:
    """Give an objective the mean and the standard deviation of attributes in a training part."""
    for part in objective.modules():
        if isinstance(part, Attributes):
            rows = [
                [utterance.attributes[name] for name in targets.attributes] for utterance in train
            ]
            part.fit(torch.tensor(rows, dtype=torch.float64))


def weight_classes(objective: Objective, targets: Targets, train: Sequence[Utterance]) -> None:
    """Weight the classes by the inverse of their share of a training part; 1 for an absent class.

    The weight of a class is n / (C · n_c), with C the classes that occur and n_c the number of
    their labels, or the sum of their votes.
    """
    known = target_tensor(targets, train)
    for part in objective.modules():
        if isinstance(part, Classes):
            counts = class_counts(part, known)
        elif isinstance(part, Votes):
            counts = known[:, : part.n_outputs].sum(dim=0)
        else:
            continue
        share = len(train) / (counts > 0).sum() / counts
        part.class_weights = torch.where(counts > 0, share, 1.0).float()


def class_counts(part: Classes, known: Tensor) -> Tensor:
    """Return how often each class occurs, (C,) float64; ``known`` is a :func:`target_tensor`."""
    labels = part.classes(known[:, :1] if known.dim() == 2 else known)
    return labels.bincount(minlength=part.n_outputs).double()


@dataclass(frozen=True)
class OutputScorer:
    """Scores the outputs of a head: ``objective`` is a copy on the CPU, without class weights."""

    objective: Objective
    targets: Targets

    @classmethod
    def of(cls, objective: Objective, targets: Targets) -> "OutputScorer":
        """Return the scorer of an objective that is not changed from now on."""
        copy = deepcopy(objective).cpu()
        for part in copy.modules():
            if isinstance(part, Classes | Votes):
                part.class_weights = None
        return cls(copy, targets)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predictions, (utterances, outputs) float64, of outputs on the CPU."""
        return self.objective.predictions(outputs)

    def __call__(self, outputs: Tensor, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Return every metric of the target, and ``loss``."""
        labels = [self.targets.value(utterance) for utterance in utterances]
        predicted = [self.targets.predicted(row) for row in self.predictions(outputs).tolist()]
        terms = self.objective.terms(outputs, target_tensor(self.targets, utterances))
        loss = float(torch.stack([*terms.values()]).sum())
        return {**scores(labels, predicted, scorer_of(self.targets)), "loss": loss}


def predictions(fold: Fold, seed: int, predicted: Tensor, targets: Targets) -> Predictions:
    """Return the predictions of a head on the test part of a fold.

    ``predicted`` is (utterances, outputs), those of the objective, in the order of the test part.
    """
    labels = [targets.value(utterance) for utterance in fold.test]
    values = [targets.predicted(row) for row in predicted.tolist()]
    return Predictions(fold.name, seed, labels, values, [utterance.id for utterance in fold.test])
