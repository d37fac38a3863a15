"""Bootstrap intervals of the metrics: what other utterances of the same kind would have given.

The unit that is drawn is an utterance, with what every seed said of it, since what two seeds say of
one utterance is no independent evidence. A bootstrap of n utterances is n draws with replacement.
The metrics depend on a draw by the number of times that each distinct row (label, prediction of the
first seed, of the second, ...) was drawn alone, and these numbers follow a multinomial
distribution; so they are drawn at once, turned into confusion matrices by one matrix product, and
scored all together. This is the same bootstrap, exactly, and takes a fraction of a second.

What an interval says: how far the score may move with another sample of test utterances, the
trained weights being what they are. It does not hold the variance of training (that is the standard
deviation over seeds), nor that of another training part. Utterances of one speaker or dialogue are
not independent either, so that it is rather too narrow; with ``groups`` whole dialogues or speakers
are drawn instead, which wants more than a few of them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 0  # so that a run gives the same intervals whenever they are computed
_AT_ONCE = 500  # draws, so that memory does not grow with their number
_DECIMALS = 12  # the mean over seeds of equal scores may differ behind these, by its order alone

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Units:
    """The different things that can be drawn, each with what it adds to the confusion matrices.

    ``counts`` (units,) int64 is how many like it there are in the data; ``tables`` (units, columns,
    classes, classes) float64 holds counts, by label and prediction. A column is a seed.
    """

    counts: Numbers
    tables: Numbers

    def drawn(self, resamples: int, generator: np.random.Generator) -> Numbers:
        """Draw as many units as there are, with replacement; (resamples, units) int64."""
        total = self.counts.sum()
        return generator.multinomial(total, self.counts / total, size=resamples)

    def confusions(self, drawn: Numbers) -> Numbers:
        """Return (resamples, columns, classes, classes) float64, whole numbers, of draws."""
        return np.tensordot(drawn.astype(np.float64), self.tables, axes=1)


def units(
    labels: Sequence[str],
    predicted: Sequence[Sequence[str]],
    groups: Sequence[Hashable] | None = None,
) -> Units:
    """Collect what can be drawn, in the order in which it first occurs.

    Args:
        labels: n labels.
        predicted: n rows of predictions, one for each seed.
        groups: n names of dialogues or speakers, which are then drawn whole.

    Raises:
        ValueError: there is no utterance, or the lengths differ.
    """
    if not labels:
        raise ValueError("there is no utterance to draw from")
    rows = [(label, *said) for label, said in zip(labels, predicted, strict=True)]
    classes, codes = np.unique(np.array(rows), return_inverse=True)
    codes = codes.reshape(len(rows), -1)
    if groups is None:
        _, first, counts = np.unique(codes, axis=0, return_index=True, return_counts=True)
        order = np.argsort(first)  # the order of the runs that are compared must not matter
        codes, counts = codes[first[order]], counts[order]
        unit = np.arange(len(counts))
    else:
        number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
        unit = np.array([number[group] for group, _ in zip(groups, rows, strict=True)])
        counts = np.ones(len(number), dtype=np.int64)
    columns = codes.shape[1] - 1
    tables = np.zeros((len(counts), columns, len(classes), len(classes)))
    np.add.at(tables, (unit[:, None], np.arange(columns), codes[:, :1], codes[:, 1:]), 1)
    return Units(counts, tables)


def scores_of(confusions: Numbers) -> dict[str, Numbers]:
    """Score confusion matrices (..., classes, classes) as ``metrics.scores`` does; each (...).

    A class that no label has is left out of UA; one that occurs neither among labels nor
    predictions is left out of macro F1; one that is never predicted counts 0.
    """
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    there, said = confusions.sum(axis=-1), confusions.sum(axis=-2)
    # Where a denominator is 0 the numerator is 0 too, and so is the quotient by 1.
    recall = right / np.maximum(there, 1)
    f1 = 2 * right / np.maximum(there + said, 1)
    total = there.sum(axis=-1)
    return {
        "wa": right.sum(axis=-1) / total,
        "ua": recall.sum(axis=-1) / (there > 0).sum(axis=-1),
        "weighted_f1": (f1 * there).sum(axis=-1) / total,
        "macro_f1": f1.sum(axis=-1) / (there + said > 0).sum(axis=-1),
    }


def bootstrap(of: Units, resamples: int = RESAMPLES, seed: int = _SEED) -> dict[str, Numbers]:
    """Return each metric in each draw and column, (resamples, columns) float64."""
    generator = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = of.drawn(min(_AT_ONCE, resamples - start), generator)
        parts.append(scores_of(of.confusions(drawn)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Numbers) -> list[float]:
    """Return the percentile interval [low, high] of ``values`` (resamples,), at ``LEVEL``."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low), float(high)]


def differences(first: Numbers, second: Numbers) -> Numbers:
    """Return second - first of two runs on the same draws, (resamples,), means over their seeds.

    ``first`` and ``second`` are (resamples, columns), each with as many columns as it has seeds.
    """
    difference: Numbers = np.round(second.mean(axis=1) - first.mean(axis=1), _DECIMALS)
    return difference


def p_value(differences: Numbers) -> float:
    """Return the two-sided p value that belongs to the percentile interval of a difference.

    It is twice the share of draws on the rarer side of 0, a draw at 0 being on both, and counts
    the data themselves as a draw; so it is never below 2 / (resamples + 1), and 1 for equal runs.
    """
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (1 + rarer) / (1 + len(differences))))
