"""Scores of labels and predictions by the metrics of the registry, and their summary."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from .bootstrap import RESAMPLES, bootstrap, interval, resampling_units
from .registry import METRICS, scores_of


@dataclass(frozen=True)
class Predictions:
    """The labels and predicted classes of the test utterances of one fold and seed.

    ``ids``, ``labels`` and ``predicted`` have the same order. Without ids, the n-th utterance of a
    fold is assumed to be the same for every seed.
    """

    fold: str
    seed: int
    labels: Sequence[str]
    predicted: Sequence[str]
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class AlignedPredictions:
    """The predictions of all seeds for each test utterance, with the folds of a seed pooled.

    ``ids``, ``labels`` and the rows of ``predicted`` have one element per utterance, sorted by id;
    a row of ``predicted`` has one element per seed, in the order of ``seeds``.
    """

    ids: tuple[Any, ...]
    labels: tuple[str, ...]
    predicted: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]


def scores(labels: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Score predictions by every metric of :mod:`.registry`; each value is in [0, 1].

    Raises:
        ValueError: there is no utterance, or the lengths differ.
    """
    units = resampling_units(labels, [(prediction,) for prediction in predicted])
    confusions = units.confusions_of(units.counts)
    return {name: float(score[0]) for name, score in scores_of(confusions).items()}


def by_class(
    labels: Sequence[str], predicted: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Score each class, in the order of ``classes``; the result consists of JSON values.

    ``per_class`` is class → ``precision``, ``recall``, ``f1`` in [0, 1] and ``support``, the number
    of its labels. Undefined values are ``None``: the precision of a class that is never predicted,
    the recall of a class that no label has, the F1 of a class that has neither. ``confusion`` has
    counts, with one row per label and one column per prediction.
    """
    names = list(classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=names, average=None, zero_division=np.nan
    )
    per_class = {
        name: {
            "precision": _defined(precision[index]),
            "recall": _defined(recall[index]),
            "f1": _defined(f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(names)
    }
    confusion = confusion_matrix(labels, predicted, labels=names)
    return {"per_class": per_class, "confusion": confusion.tolist()}


def pooled_by_class(parts: Sequence[Predictions], classes: Sequence[str]) -> dict[str, Any]:
    """Score each class as ``by_class`` does, with the folds of a seed pooled.

    ``precision``, ``recall`` and ``f1`` are means over the seeds for which they are defined, like
    the pooled metrics; ``support`` and ``confusion`` are sums over the seeds.
    """
    seeds = [by_class(labels, predicted, classes) for labels, predicted in _pooled(parts).values()]
    per_class: dict[str, Any] = {}
    for name in classes:
        each = [seed["per_class"][name] for seed in seeds]
        means = {key: _mean(row[key] for row in each) for key in ("precision", "recall", "f1")}
        per_class[name] = {**means, "support": sum(row["support"] for row in each)}
    confusion = np.sum([seed["confusion"] for seed in seeds], axis=0)
    return {"per_class": per_class, "confusion": confusion.tolist()}


def pooled_scores(parts: Sequence[Predictions]) -> dict[int, dict[str, float]]:
    """Score the pooled folds of each seed: seed → metric → value, in ascending order of seeds."""
    return {seed: scores(*lists) for seed, lists in _pooled(parts).items()}


def of_fold(parts: Sequence[Predictions], fold: str) -> list[Predictions]:
    """Return the predictions of a fold, for every seed."""
    return [part for part in parts if part.fold == fold]


def aggregate(
    parts: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    groups: Mapping[Any, Hashable] | None = None,
) -> dict[str, dict[str, Any]]:
    """Summarise folds and seeds, for each metric; the result consists of JSON values.

    ``mean`` and ``std`` are over all folds and seeds. For ``pooled``, the folds of a seed are
    scored together, so that every utterance counts once; it is the mean over the seeds, and
    ``pooled_std`` the standard deviation over the seeds. ``pooled_ci95`` [low, high] is the 95 %
    interval of a bootstrap, which does not include the variance of training (see ``bootstrap``).
    Standard deviations are sample standard deviations, and ``None`` for a single value.
    ``pooled_ci95`` is ``None`` unless every seed tests the same utterances once each.

    Args:
        parts: one per fold and seed.
        resamples: the number of bootstrap samples.
        groups: id → dialogue or speaker, to draw whole groups; the parts must then have ids. By
            default single utterances are drawn.
    """
    each = [scores(part.labels, part.predicted) for part in parts]
    pooled = list(pooled_scores(parts).values())
    aligned = align_seeds(parts)
    samples = None
    if aligned is not None:
        clusters = None if groups is None else [groups[id] for id in aligned.ids]
        units = resampling_units(aligned.labels, aligned.predicted, clusters)
        samples = bootstrap(units, resamples)
    return {
        metric: {
            "mean": fmean(part[metric] for part in each),
            "std": _std([part[metric] for part in each]),
            "pooled": fmean(seed[metric] for seed in pooled),
            "pooled_std": _std([seed[metric] for seed in pooled]),
            "pooled_ci95": None if samples is None else interval(samples[metric].mean(axis=1)),
        }
        for metric in METRICS
    }


def align_seeds(parts: Sequence[Predictions]) -> AlignedPredictions | None:
    """Align the predictions of all seeds by utterance.

    Returns:
        ``None`` unless every seed tests the same utterances, with the same labels, once each.
    """
    by_seed: dict[int, dict[Any, tuple[str, str]]] = {}
    for part in parts:
        of_seed = by_seed.setdefault(part.seed, {})
        ids: Sequence[Any] = part.ids or [(part.fold, n) for n in range(len(part.labels))]
        for id, label, predicted in zip(ids, part.labels, part.predicted, strict=True):
            if id in of_seed:
                return None
            of_seed[id] = label, predicted
    seeds = tuple(sorted(by_seed))
    first, *others = [{id: label for id, (label, _) in by_seed[seed].items()} for seed in seeds]
    if any(labels != first for labels in others):
        return None
    ids = tuple(sorted(first))
    return AlignedPredictions(
        ids,
        tuple(first[id] for id in ids),
        tuple(tuple(by_seed[seed][id][1] for seed in seeds) for id in ids),
        seeds,
    )


def _pooled(parts: Sequence[Predictions]) -> dict[int, tuple[list[str], list[str]]]:
    """Return the labels and predictions of all folds by seed."""
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
