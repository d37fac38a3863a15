"""The table of the metrics by name; each is computed from confusion matrices.

Confusion matrices (…, classes, classes) float64 hold counts, with one row per label and one column
per prediction; the first dimensions are, for example, bootstrap samples and seeds. A metric returns
a score in [0, 1] for each matrix, (…). So one function scores the predictions of a run and all
samples of a bootstrap. Nothing slow is imported here, because the help of the command line reads
this file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..plugins import Plugins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A metric: its title in tables, and its score of confusion matrices.

    The metrics of other targets than classes are computed from other numbers: see :mod:`.scorers`.
    """

    title: str
    score: Callable[["Numbers"], "Numbers"]
    percent: bool = True
    """Whether tables show it in %; else with three decimals."""
    larger_is_better: bool = True
    """Whether a larger score is a better one."""

    def text(self, value: float, sign: str = "") -> str:
        """Return a score as text; ``sign`` "+" marks positive numbers."""
        return f"{100 * value:{sign}z.1f}" if self.percent else f"{value:{sign}z.3f}"

    def interval(self, bounds: Sequence[float], sign: str = "") -> str:
        """Return a score's interval [low, high] as text, without the brackets."""
        low, high = bounds
        return f"{self.text(low, sign)}, {self.text(high, sign)}"


def _weighted_accuracy(confusions: "Numbers") -> "Numbers":
    """Accuracy, in which a class weighs as much as it has labels."""
    correct: Numbers = _correct(confusions).sum(axis=-1) / confusions.sum(axis=(-2, -1))
    return correct


def _unweighted_accuracy(confusions: "Numbers") -> "Numbers":
    """Mean recall of the classes that occur among the labels."""
    support = confusions.sum(axis=-1)
    recall = _correct(confusions) / support.clip(min=1)
    mean: Numbers = recall.sum(axis=-1) / (support > 0).sum(axis=-1)
    return mean


def _weighted_f1(confusions: "Numbers") -> "Numbers":
    """F1 of each class, weighted by its number of labels."""
    support = confusions.sum(axis=-1)
    mean: Numbers = (_f1(confusions) * support).sum(axis=-1) / support.sum(axis=-1)
    return mean


def _macro_f1(confusions: "Numbers") -> "Numbers":
    """Mean F1 of the classes that occur among the labels or the predictions."""
    occurs = confusions.sum(axis=-1) + confusions.sum(axis=-2) > 0
    mean: Numbers = _f1(confusions).sum(axis=-1) / occurs.sum(axis=-1)
    return mean


METRICS: dict[str, Metric] = {
    "wa": Metric("WA", _weighted_accuracy),
    "ua": Metric("UA", _unweighted_accuracy),
    "weighted_f1": Metric("weighted F1", _weighted_f1),
    "macro_f1": Metric("macro F1", _macro_f1),
}
"""Name → metric, in the order of tables."""


def _accepted(value: Any, name: str) -> Metric | None:
    if isinstance(value, Metric):
        return value
    if callable(value) and not isinstance(value, type):
        return Metric(name.replace("_", " "), value)
    return None


METRIC_PLUGINS = Plugins(
    "metric",
    "mser.metrics",
    METRICS,
    _accepted,
    "a function of confusion matrices or a Metric",
    "--set monitor=",
    short=True,
)


def scores_of(confusions: "Numbers") -> dict[str, "Numbers"]:
    """Return every metric of confusion matrices (…, classes, classes) by name; each is (…)."""
    METRIC_PLUGINS.add_installed()
    return {name: metric.score(confusions) for name, metric in METRICS.items()}


def _f1(confusions: "Numbers") -> "Numbers":
    """Return the F1 of each class, (…, classes); 0 if it is never predicted or never a label."""
    counts = confusions.sum(axis=-1) + confusions.sum(axis=-2)
    # If the denominator is 0, the numerator is 0 too, and so is the quotient by 1.
    f1: Numbers = 2 * _correct(confusions) / counts.clip(min=1)
    return f1


def _correct(confusions: "Numbers") -> "Numbers":
    return confusions.diagonal(axis1=-2, axis2=-1)
