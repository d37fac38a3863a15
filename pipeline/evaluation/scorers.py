"""How the predictions of a target are scored: its metrics, and what a bootstrap draws of it.

A scorer takes labels and predictions as :data:`~mser.pipeline.targets.Value`: names of classes for
``emotion`` alone, and otherwise tuples.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..targets import EMOTION, Targets, Value
from .bootstrap import Units, resampling_units
from .numbers import NUMBER_METRICS, number_metrics, scored, shift_and_scale, sums_of
from .registry import METRIC_PLUGINS, METRICS, Metric, scores_of
from .several_labels import LABEL_METRICS, THRESHOLD, counts_of, mean_average_precision

Numbers = NDArray[Any]
Groups = Sequence[Hashable] | None

_SMALLEST = 1e-12  # of a predicted probability, so that no divergence is infinite


class Scorer(Protocol):
    """Scores the predictions of a target."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Name → metric, in the order of tables."""

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """Return what can be drawn of n labels and n rows of predictions, one for each seed.

        ``groups`` are n names of dialogues or speakers; if given, whole groups are drawn.
        """

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """Return the scores of each class as JSON values; nothing for a target without classes."""


@dataclass(frozen=True)
class ClassScorer:
    """Scores one class for each utterance."""

    classes: tuple[str, ...] = ()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See :class:`Scorer`."""
        METRIC_PLUGINS.add_installed()
        return METRICS

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """See :class:`Scorer`."""
        return resampling_units(labels, predicted, groups)

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """See :class:`Scorer`."""
        return by_class(labels, predicted, self.classes)


@dataclass(frozen=True)
class NumberScorer:
    """Scores attributes: rows of numbers on their own scale."""

    attributes: tuple[str, ...]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See :class:`Scorer`."""
        return number_metrics(self.attributes)

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """See :class:`Scorer`."""
        known, rows = _arrays(labels, predicted)
        shift, scale = shift_and_scale(known)
        sums = sums_of(((known - shift) / scale)[:, None], (rows - shift) / scale)
        unit, counts = _units(len(known), groups)
        return SumUnits(
            counts, _grouped(sums, unit, len(counts)), lambda s: scored(s, self.attributes, scale)
        )

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """See :class:`Scorer`."""
        return {}


@dataclass(frozen=True)
class VoteScorer:
    """Scores distributions over the classes.

    ``kl`` is the mean of KL(q ‖ p) = Σ_c q_c log(q_c / p_c), in nats, of the votes q and the
    prediction p. The metrics of classes compare the class with the most votes to the most probable
    one; an utterance whose votes are a tie is not in them.
    """

    classes: tuple[str, ...]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See :class:`Scorer`."""
        METRIC_PLUGINS.add_installed()
        return {**METRICS, **VOTE_METRICS}

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """See :class:`Scorer`."""
        known, rows = _arrays(labels, predicted)
        n, columns, classes = rows.shape
        divergence = _divergence(known[:, None], rows)
        decided, best = majority(known), rows.argmax(axis=-1)
        confusions = np.zeros((n, columns, classes, classes))
        at = np.arange(n)[:, None], np.arange(columns), known.argmax(axis=1)[:, None], best
        confusions[at] = decided[:, None]
        sums = np.concatenate(
            [confusions.reshape(n, columns, -1), divergence[..., None], np.ones((n, columns, 1))],
            axis=-1,
        )
        unit, counts = _units(n, groups)
        return SumUnits(counts, _grouped(sums, unit, len(counts)), self._scores)

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """See :class:`Scorer`."""
        known, rows = _arrays(labels, [(row,) for row in predicted])
        decided = np.flatnonzero(majority(known))
        names = np.array(self.classes)
        of_label, of_row = known[decided].argmax(axis=1), rows[decided, 0].argmax(axis=1)
        return by_class(names[of_label].tolist(), names[of_row].tolist(), self.classes)

    def _scores(self, sums: Numbers) -> dict[str, Numbers]:
        size = len(self.classes)
        confusions = sums[..., :-2].reshape(*sums.shape[:-1], size, size)
        with np.errstate(invalid="ignore", divide="ignore"):  # no utterance has a majority
            of_classes = {k: np.nan_to_num(v) for k, v in scores_of(confusions).items()}
        return {**of_classes, "kl": sums[..., -2] / sums[..., -1]}


VOTE_METRICS = {
    "kl": Metric("KL", lambda sums: sums, percent=False, larger_is_better=False),
}
"""The metrics of votes besides those of classes."""


@dataclass(frozen=True)
class LabelScorer:
    """Scores several classes for each utterance; see :mod:`.several_labels`."""

    classes: tuple[str, ...]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See :class:`Scorer`."""
        return LABEL_METRICS

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """See :class:`Scorer`."""
        known, rows = _arrays(labels, predicted)
        unit, counts = _units(len(known), groups)
        sums = _grouped(counts_of(known[:, None], rows), unit, len(counts))
        return _LabelUnits(counts, sums, known, rows, unit)

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """See :class:`Scorer`."""
        known, rows = _arrays(labels, [(row,) for row in predicted])
        chosen = (rows[:, 0] >= THRESHOLD).astype(int)
        from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415

        values = precision_recall_fscore_support(
            known.astype(int), chosen, average=None, zero_division=np.nan
        )
        return {"per_class": _per_class(self.classes, values)}


@dataclass(frozen=True)
class JoinedScorer:
    """Scores several targets: each has a part of the columns of the values."""

    parts: tuple[tuple[slice | int, Scorer], ...]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See :class:`Scorer`."""
        return {name: m for _, part in self.parts for name, m in part.metrics.items()}

    def units(
        self, labels: Sequence[Value], predicted: Sequence[Sequence[Value]], groups: Groups = None
    ) -> Units:
        """See :class:`Scorer`."""
        alone = range(len(labels)) if groups is None else groups  # the same units in all parts
        parts = [
            part.units(
                [label[at] for label in labels], [[p[at] for p in row] for row in predicted], alone
            )
            for at, part in self.parts
        ]
        return _JoinedUnits(parts[0].counts, parts)

    def details(self, labels: Sequence[Value], predicted: Sequence[Value]) -> dict[str, Any]:
        """See :class:`Scorer`."""
        details: dict[str, Any] = {}
        for at, part in self.parts:
            details |= part.details([label[at] for label in labels], [p[at] for p in predicted])
        return details


_OVER_CLASSES: dict[str, Callable[[tuple[str, ...]], Scorer]] = {
    "emotion": ClassScorer,
    "votes": VoteScorer,
    "labels": LabelScorer,
}


def scorer_of(targets: Targets) -> Scorer:
    """Return the scorer of what a training predicts."""
    over, attributes = targets.over_classes, targets.attributes
    parts: list[tuple[slice | int, Scorer]] = []
    width = 0
    if over is not None:
        width = 1 if over == "emotion" else len(targets.classes)
        parts.append(
            (0 if over == "emotion" else slice(width), _OVER_CLASSES[over](targets.classes))
        )
    if attributes:
        parts.append((slice(width, width + len(attributes)), NumberScorer(attributes)))
    return parts[0][1] if targets.names == EMOTION else JoinedScorer(tuple(parts))


def metric_named(name: str) -> Metric | None:
    """Return the metric of any target by its name, such as ``ccc_valence``; ``None`` if unknown."""
    for table in (METRICS, NUMBER_METRICS, VOTE_METRICS, LABEL_METRICS):
        if name in table:
            return table[name]
    kind, _, attribute = name.partition("_")
    if kind in NUMBER_METRICS and attribute:
        return number_metrics((attribute, ""))[name]
    return None


def larger_is_better(monitor: str) -> bool:
    """Return whether a larger ``monitor`` is better: the name of a metric, or ``loss``."""
    metric = metric_named(monitor)
    return monitor != "loss" and (metric is None or metric.larger_is_better)


def rank(monitor: str, score: float) -> float:
    """Return a number that is larger for a better score; that of NaN is the smallest."""
    if math.isnan(score):
        return -math.inf
    return score if larger_is_better(monitor) else -score


def by_class(
    labels: Sequence[str], predicted: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Score each class, in the order of ``classes``; the result consists of JSON values.

    ``per_class`` is class → ``precision``, ``recall``, ``f1`` in [0, 1] and ``support``, the number
    of its labels. Undefined values are ``None``: the precision of a class that is never predicted,
    the recall of a class that no label has, the F1 of a class that has neither. ``confusion`` has
    counts, with one row per label and one column per prediction.
    """
    # Seconds to import, and only needed when a training is done.
    from sklearn.metrics import (  # noqa: PLC0415
        confusion_matrix,
        precision_recall_fscore_support,
    )

    names = list(classes)
    if not labels:
        nothing = dict.fromkeys(("precision", "recall", "f1")) | {"support": 0}
        zeros = np.zeros((len(names), len(names)), dtype=int)
        return {"per_class": {name: dict(nothing) for name in names}, "confusion": zeros.tolist()}
    values = precision_recall_fscore_support(
        labels, predicted, labels=names, average=None, zero_division=np.nan
    )
    confusion = confusion_matrix(labels, predicted, labels=names)
    return {"per_class": _per_class(names, values), "confusion": confusion.tolist()}


def majority(votes: Numbers) -> Numbers:
    """Return which rows of votes (n, classes) have one class with the most votes, (n,) bool."""
    ordered = np.sort(votes, axis=1)
    return ordered[:, -1] > ordered[:, -2]


@dataclass(frozen=True)
class SumUnits(Units):
    """Units whose contributions add up; ``score`` gives the metrics of the sums of samples.

    ``sums`` is (units, columns, …) float64, and ``score`` takes (resamples, columns, …).
    """

    sums: Numbers
    score: Callable[[Numbers], dict[str, Numbers]]

    def scores(self, samples: Numbers) -> dict[str, Numbers]:
        """See :class:`Units`."""
        return self.score(np.tensordot(samples.astype(np.float64), self.sums, axes=1))


@dataclass(frozen=True)
class _LabelUnits(Units):
    """Units of several labels: the average precision needs each utterance, not only sums."""

    sums: Numbers
    labels: Numbers
    predicted: Numbers
    unit: Numbers

    def scores(self, samples: Numbers) -> dict[str, Numbers]:
        """See :class:`Units`."""
        weights = samples.astype(np.float64)
        counts = np.tensordot(weights, self.sums, axes=1)
        scores = {name: LABEL_METRICS[name].score(counts) for name in ("macro_f1", "micro_f1")}
        of_utterances = weights[:, self.unit]
        columns = [
            mean_average_precision(self.labels, self.predicted[:, column], of_utterances)
            for column in range(self.predicted.shape[1])
        ]
        return {**scores, "map": np.stack(columns, axis=1)}


@dataclass(frozen=True)
class _JoinedUnits(Units):
    """The units of several targets: a draw is the same utterances for all of them."""

    parts: list[Units] = field(default_factory=list)

    def scores(self, samples: Numbers) -> dict[str, Numbers]:
        """See :class:`Units`."""
        return {name: s for part in self.parts for name, s in part.scores(samples).items()}


def _arrays(
    labels: Sequence[Value], predicted: Sequence[Sequence[Value]]
) -> tuple[Numbers, Numbers]:
    """Return labels (n, numbers) and predictions (n, columns, numbers), float64."""
    if not labels:
        raise ValueError("there is no utterance to draw from")
    if len(labels) != len(predicted):
        raise ValueError("labels and predictions differ in their number")
    return np.array(labels, dtype=np.float64), np.array(predicted, dtype=np.float64)


def _units(n: int, groups: Groups) -> tuple[Numbers, Numbers]:
    """Return the unit of each of n utterances, and how often each unit occurs, which is once."""
    if groups is None:
        return np.arange(n), np.ones(n, dtype=np.int64)
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups]), np.ones(len(number), dtype=np.int64)


def _grouped(values: Numbers, unit: Numbers, n_units: int) -> Numbers:
    """Add up (n, …) contributions of utterances by unit."""
    sums = np.zeros((n_units, *values.shape[1:]))
    np.add.at(sums, unit, values)
    return sums


def _divergence(votes: Numbers, predicted: Numbers) -> Numbers:
    q, p = np.broadcast_arrays(votes, predicted.clip(min=_SMALLEST))
    ratio = np.log(np.where(q > 0, q, 1.0)) - np.log(p)
    divergence: Numbers = (q * ratio).sum(axis=-1)
    return divergence


def _per_class(names: Sequence[str], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    precision, recall, f1, support = values
    return {
        name: {
            "precision": _defined(precision[index]),
            "recall": _defined(recall[index]),
            "f1": _defined(f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(names)
    }


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
