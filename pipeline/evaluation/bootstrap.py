"""Bootstrap confidence intervals of the metrics, over the test utterances.

The resampling unit is an utterance with the predictions of all seeds, because the predictions of
two seeds for one utterance are not independent. A bootstrap sample of n utterances consists of n
draws with replacement. The metrics of a sample depend only on how often each distinct row (label,
prediction of the first seed, of the second, …) was drawn, and these counts follow a multinomial
distribution. They are therefore drawn directly, turned into confusion matrices by one matrix
product, and scored together. The result is exactly that of the usual bootstrap, in a fraction of a
second. Other targets than classes have no equal rows: their utterances are drawn one by one, and
:mod:`.scorers` scores the samples.

An interval shows how much the score may change with another sample of test utterances, for the same
trained weights. It does not include the variance of training (see the standard deviation over
seeds) or of another training part. Utterances of one speaker or dialogue are not independent, so
the true interval is wider. With ``groups``, whole dialogues or speakers are drawn instead, which
needs more than a few of them; :mod:`.groups` chooses them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .registry import scores_of

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 0  # fixed, so that the intervals of a run are always the same
_BATCH = 500  # samples at once, so that memory does not grow with their number
_DECIMALS = 12  # the mean over seeds of equal scores may differ after these, by rounding

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Units:
    """The distinct units that can be drawn.

    ``counts`` (units,) int64 is the number of occurrences of each unit in the data.
    """

    counts: Numbers

    def draw(self, resamples: int, generator: np.random.Generator) -> Numbers:
        """Draw ``counts.sum()`` units with replacement; return counts (resamples, units) int64."""
        total = self.counts.sum()
        return generator.multinomial(total, self.counts / total, size=resamples)

    def scores(self, samples: Numbers) -> dict[str, Numbers]:
        """Return each metric of samples (resamples, units), (resamples, columns) float64.

        A column is a seed.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ResamplingUnits(Units):
    """The units of one class for each utterance, with contributions to the confusion matrices.

    ``confusions`` (units, columns, classes, classes) float64 are counts by label and prediction.
    """

    confusions: Numbers

    def scores(self, samples: Numbers) -> dict[str, Numbers]:
        """See :class:`Units`."""
        return scores_of(self.confusions_of(samples))

    def confusions_of(self, samples: Numbers) -> Numbers:
        """Return the confusion matrices of samples, (resamples, columns, classes, classes)."""
        return np.tensordot(samples.astype(np.float64), self.confusions, axes=1)


def resampling_units(
    labels: Sequence[str],
    predicted: Sequence[Sequence[str]],
    groups: Sequence[Hashable] | None = None,
) -> ResamplingUnits:
    """Collect the resampling units, in the order of their first occurrence.

    Args:
        labels: n labels.
        predicted: n rows of predictions, one prediction per seed.
        groups: n names of dialogues or speakers; if given, whole groups are drawn.

    Raises:
        ValueError: there is no utterance, or the lengths differ.
    """
    if not labels:
        raise ValueError("there is no utterance to draw from")
    rows = [(label, *row) for label, row in zip(labels, predicted, strict=True)]
    classes, codes = np.unique(np.array(rows), return_inverse=True)
    codes = codes.reshape(len(rows), -1)
    if groups is None:
        _, first, counts = np.unique(codes, axis=0, return_index=True, return_counts=True)
        order = np.argsort(first)  # does not depend on the order of compared runs
        codes, counts = codes[first[order]], counts[order]
        unit = np.arange(len(counts))
    else:
        unit_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        unit = np.array([unit_of[group] for group, _ in zip(groups, rows, strict=True)])
        counts = np.ones(len(unit_of), dtype=np.int64)
    columns = codes.shape[1] - 1
    confusions = np.zeros((len(counts), columns, len(classes), len(classes)))
    np.add.at(confusions, (unit[:, None], np.arange(columns), codes[:, :1], codes[:, 1:]), 1)
    return ResamplingUnits(counts, confusions)


def bootstrap(units: Units, resamples: int = RESAMPLES, seed: int = _SEED) -> dict[str, Numbers]:
    """Return each metric of each bootstrap sample and column, (resamples, columns) float64."""
    generator = np.random.default_rng(seed)
    batches = []
    for start in range(0, resamples, _BATCH):
        samples = units.draw(min(_BATCH, resamples - start), generator)
        batches.append(units.scores(samples))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def interval(values: Numbers) -> list[float]:
    """Return the percentile interval [low, high] of ``values`` (resamples,), at ``LEVEL``."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low), float(high)]


def metric_differences(first: Numbers, second: Numbers) -> Numbers:
    """Return second - first on the same bootstrap samples, (resamples,), as means over the seeds.

    ``first`` and ``second`` are (resamples, seeds of the run).
    """
    difference: Numbers = np.round(second.mean(axis=1) - first.mean(axis=1), _DECIMALS)
    return difference


def p_value(differences: Numbers) -> float:
    """Return the two-sided p value of a difference, which matches its percentile interval.

    It is twice the share of samples on the rarer side of 0. A sample at 0 counts on both sides, and
    the data themselves count as one sample. So p is at least 2 / (resamples + 1), and 1 for equal
    runs.
    """
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (1 + rarer) / (1 + len(differences))))
