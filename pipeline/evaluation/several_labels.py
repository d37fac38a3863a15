"""Metrics of several labels at once, from counts of true and false positives and from rankings.

A class is predicted if its probability is 0.5 or more.

- F1 of a class is 2 TP / (2 TP + FP + FN), and 0 if the class is neither a label nor predicted.
  ``macro_f1`` is its mean over all classes, and ``micro_f1`` the F1 of the sums over the classes.
- ``map`` is the mean over the classes that are a label of some utterance of the average precision
  AP = Σ_k (R_k - R_{k-1}) P_k, with the precision and recall of the k highest distinct
  probabilities; the same as scikit-learn's ``average_precision_score``. It is 0 if there is no
  label at all.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .registry import Metric

Numbers = NDArray[Any]

THRESHOLD = 0.5


def _macro_f1(counts: Numbers) -> Numbers:
    mean: Numbers = _f1(counts).mean(axis=-1)
    return mean


def _micro_f1(counts: Numbers) -> Numbers:
    return _f1(counts.sum(axis=-2, keepdims=True))[..., 0]


def _f1(counts: Numbers) -> Numbers:
    """Return the F1 of each class from (…, classes, 3) counts of TP, FP and FN."""
    true, false, missed = np.moveaxis(counts, -1, 0)
    below = 2 * true + false + missed
    f1: Numbers = np.divide(2 * true, below, out=np.zeros_like(true), where=below > 0)
    return f1


LABEL_METRICS: dict[str, Metric] = {
    "macro_f1": Metric("macro F1", _macro_f1),
    "micro_f1": Metric("micro F1", _micro_f1),
    "map": Metric("mAP", lambda precisions: precisions),
}
"""Name → metric, in the order of tables; ``map`` is computed by :func:`mean_average_precision`."""


def counts_of(labels: Numbers, predicted: Numbers) -> Numbers:
    """Return the contributions of utterances to the counts, (…, classes, 3) float64.

    ``labels`` (…, classes) are 0 or 1, ``predicted`` (…, classes) probabilities.
    """
    present, chosen = np.broadcast_arrays(labels > 0, predicted >= THRESHOLD)
    kinds = [present & chosen, ~present & chosen, present & ~chosen]
    return np.stack(kinds, axis=-1).astype(np.float64)


def mean_average_precision(labels: Numbers, predicted: Numbers, weights: Numbers) -> Numbers:
    """Return the mean average precision of each sample, (samples,).

    Args:
        labels: (n, classes), 0 or 1.
        predicted: (n, classes) probabilities.
        weights: (samples, n), how often each utterance was drawn.
    """
    total, occurring = np.zeros(len(weights)), np.zeros(len(weights))
    for label, score in zip(labels.T > 0, predicted.T, strict=True):
        order = np.argsort(-score, kind="stable")
        last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of equal scores
        drawn = weights[:, order]
        chosen = drawn.cumsum(axis=1)[:, last]
        correct = (drawn * label[order]).cumsum(axis=1)[:, last]
        precision = np.divide(correct, chosen, out=np.zeros_like(correct), where=chosen > 0)
        gained = np.diff(correct, axis=1, prepend=0.0)
        positives = correct[:, -1]
        area = (gained * precision).sum(axis=1)
        total += np.divide(area, positives, out=np.zeros_like(area), where=positives > 0)
        occurring += positives > 0
    return np.divide(total, occurring, out=np.zeros_like(total), where=occurring > 0)
