"""The field's metrics, by scikit-learn, from labels and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from sklearn.metrics import accuracy_score, f1_score, recall_score

METRICS = ("wa", "ua", "weighted_f1", "macro_f1")


@dataclass(frozen=True)
class Predictions:
    """What a head said on the test part of one fold: classes by name, in one order."""

    fold: str
    seed: int
    labels: Sequence[str]
    predicted: Sequence[str]


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


def aggregate(parts: Sequence[Predictions]) -> dict[str, dict[str, float | None]]:
    """Sum up folds and seeds, for each metric.

    ``mean`` and ``std`` (of a sample; ``None`` for a single part) are over all folds and seeds;
    ``pooled`` scores the folds of a seed together, and is the mean of that over the seeds.
    """
    each = [scores(part.labels, part.predicted) for part in parts]
    pooled = []
    for seed in sorted({part.seed for part in parts}):
        of_seed = [part for part in parts if part.seed == seed]
        labels = [label for part in of_seed for label in part.labels]
        predicted = [label for part in of_seed for label in part.predicted]
        pooled.append(scores(labels, predicted))
    return {
        metric: {
            "mean": fmean(one[metric] for one in each),
            "std": stdev(one[metric] for one in each) if len(each) > 1 else None,
            "pooled": fmean(one[metric] for one in pooled),
        }
        for metric in METRICS
    }
