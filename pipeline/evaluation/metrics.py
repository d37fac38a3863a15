"""The field's metrics, by scikit-learn, from labels and predictions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
)

from .bootstrap import RESAMPLES, bootstrap, interval, units

TITLES = {"wa": "WA", "ua": "UA", "weighted_f1": "weighted F1", "macro_f1": "macro F1"}
METRICS = tuple(TITLES)


@dataclass(frozen=True)
class Predictions:
    """What a head said on the test part of one fold: classes by name, in one order.

    ``ids`` are those of the utterances. Without them, the n-th utterance of a fold is taken to be
    the same for every seed.
    """

    fold: str
    seed: int
    labels: Sequence[str]
    predicted: Sequence[str]
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Outcomes:
    """What every seed says of each utterance, the folds of a seed together.

    ``ids``, ``labels`` and the rows of ``predicted`` go by utterance, sorted by id; a row of
    ``predicted`` goes by ``seeds``.
    """

    ids: tuple[Any, ...]
    labels: tuple[str, ...]
    predicted: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]


def scores(labels: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Score predictions; each value is in [0, 1].

    ``wa`` weighted accuracy (accuracy); ``ua`` unweighted accuracy (mean recall over the classes
    that occur among the labels); ``weighted_f1`` and ``macro_f1`` over the classes that occur among
    labels or predictions, a class without a prediction counting 0.
    """
    return {
        "wa": float(accuracy_score(labels, predicted)),
        "ua": float(recall_score(labels, predicted, labels=sorted(set(labels)), average="macro")),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", zero_division=0)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def by_class(
    labels: Sequence[str], predicted: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Score each class, in the order of ``classes``; the result is made of JSON values.

    ``per_class`` is class → ``precision``, ``recall``, ``f1`` in [0, 1] and ``support``, its number
    of labels. ``None`` stands for what is not defined: precision of a class that is never
    predicted, recall of one that no label has, F1 of one that is neither. ``confusion`` holds
    counts, a row a label and a column a prediction.
    """
    names = list(classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=names, average=None, zero_division=np.nan
    )
    per_class = {
        name: {
            "precision": _defined(precision[at]),
            "recall": _defined(recall[at]),
            "f1": _defined(f1[at]),
            "support": int(support[at]),
        }
        for at, name in enumerate(names)
    }
    confusion = confusion_matrix(labels, predicted, labels=names)
    return {"per_class": per_class, "confusion": confusion.tolist()}


def pooled_by_class(parts: Sequence[Predictions], classes: Sequence[str]) -> dict[str, Any]:
    """Score each class as ``by_class`` does, the folds of a seed together.

    Over seeds, ``precision``, ``recall`` and ``f1`` are means, as the pooled metrics are, of the
    seeds in which they are defined; ``support`` and ``confusion`` are sums.
    """
    seeds = [by_class(labels, predicted, classes) for labels, predicted in _pooled(parts).values()]
    per_class: dict[str, Any] = {}
    for name in classes:
        each = [seed["per_class"][name] for seed in seeds]
        means = {key: _mean(one[key] for one in each) for key in ("precision", "recall", "f1")}
        per_class[name] = {**means, "support": sum(one["support"] for one in each)}
    confusion = np.sum([seed["confusion"] for seed in seeds], axis=0)
    return {"per_class": per_class, "confusion": confusion.tolist()}


def pooled_scores(parts: Sequence[Predictions]) -> dict[int, dict[str, float]]:
    """Score the folds of a seed together: seed → metric → value, seeds in ascending order."""
    return {seed: scores(*lists) for seed, lists in _pooled(parts).items()}


def aggregate(
    parts: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    groups: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Sum up folds and seeds, for each metric; the result is made of JSON values.

    ``mean`` and ``std`` are over all folds and seeds. ``pooled`` scores the folds of a seed
    together, so that every utterance counts once, and is the mean of that over the seeds;
    ``pooled_std`` is its standard deviation over the seeds, and ``pooled_ci95`` [low, high] its
    interval by a bootstrap of utterances, which says nothing of the variance of training (see
    ``bootstrap``). A standard deviation is that of a sample, and ``None`` for a single value.
    ``pooled_ci95`` is ``None`` where the seeds do not all test the same utterances once each.

    Args:
        parts: one for each fold and seed.
        resamples: how many draws the interval is made of.
        groups: id → its dialogue or speaker, to draw these whole; the parts must then have ids.
    """
    each = [scores(part.labels, part.predicted) for part in parts]
    pooled = list(pooled_scores(parts).values())
    outcomes = by_utterance(parts)
    drawn = None
    if outcomes is not None:
        clusters = None if groups is None else [groups[id] for id in outcomes.ids]
        drawn = bootstrap(units(outcomes.labels, outcomes.predicted, clusters), resamples)
    return {
        metric: {
            "mean": fmean(one[metric] for one in each),
            "std": _std([one[metric] for one in each]),
            "pooled": fmean(one[metric] for one in pooled),
            "pooled_std": _std([one[metric] for one in pooled]),
            "pooled_ci95": None if drawn is None else interval(drawn[metric].mean(axis=1)),
        }
        for metric in METRICS
    }


def by_utterance(parts: Sequence[Predictions]) -> Outcomes | None:
    """Put together what the seeds say of each utterance.

    Returns:
        ``None`` where the seeds do not all test the same utterances, with the same labels, once.
    """
    of_seed: dict[int, dict[Any, tuple[str, str]]] = {}
    for part in parts:
        known = of_seed.setdefault(part.seed, {})
        ids: Sequence[Any] = part.ids or [(part.fold, at) for at in range(len(part.labels))]
        for id, label, said in zip(ids, part.labels, part.predicted, strict=True):
            if id in known:
                return None
            known[id] = label, said
    seeds = tuple(sorted(of_seed))
    labels = [{id: label for id, (label, _) in of_seed[seed].items()} for seed in seeds]
    if any(one != labels[0] for one in labels):
        return None
    ids = tuple(sorted(labels[0]))
    return Outcomes(
        ids,
        tuple(labels[0][id] for id in ids),
        tuple(tuple(of_seed[seed][id][1] for seed in seeds) for id in ids),
        seeds,
    )


def _pooled(parts: Sequence[Predictions]) -> dict[int, tuple[list[str], list[str]]]:
    """Seed → labels and predictions of all its folds."""
    pooled: dict[int, tuple[list[str], list[str]]] = {
        seed: ([], []) for seed in sorted({part.seed for part in parts})
    }
    for part in parts:
        labels, predicted = pooled[part.seed]
        labels.extend(part.labels)
        predicted.extend(part.predicted)
    return pooled


def _std(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
