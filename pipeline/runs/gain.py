"""How much a system of an ablation gains over the best of others in the same table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PipelineError
from ..evaluation.compare import Difference, compare, with_interval
from ..evaluation.registry import METRICS, Metric
from ..evaluation.scorers import metric_named
from ..train.run import Run


@dataclass(frozen=True)
class GainOverBest:
    """The difference between a system and the best of others, by one metric.

    ``against`` is the name of the best of the others. ``groups`` is what the bootstrap drew.
    """

    against: str
    difference: Difference
    metric: str
    groups: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the difference, its interval, and the name of the other system."""
        _, value, *bounds = self.cells()
        return f"{with_interval(_metric(self.metric), value, bounds, '+')} over {self.against}"

    def cells(self) -> list[Any]:
        """Return the name of the other system, the difference and its bounds."""
        return [self.against, self.difference.difference, *self.difference.difference_ci95]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        against, value, *bounds = self.cells()
        test = {"p": self.difference.p, "groups": dict(self.groups)}
        return {"against": against, "gain": value, "ci95": bounds, **test}


def gain_over_best(run: Run, others: Mapping[str, Run], metric: str) -> GainOverBest | None:
    """Return the difference between a run and the best of others, seeds averaged, folds pooled.

    The interval is that of :func:`compare`, by a paired bootstrap of dialogues or utterances. The
    best run is chosen by the same scores, so the gain is rather too small than too large. ``None``
    if the runs cannot be compared, for example if their folds test an utterance more than once.
    """

    def score(name: str) -> float:
        return float(others[name].metrics["aggregate"][metric]["mean"])

    better = max if _metric(metric).larger_is_better else min
    best = better(others, key=score)
    try:
        comparison = compare(others[best].path, run.path, metric)
    except PipelineError:
        return None
    return GainOverBest(best, comparison.metrics[metric], metric, comparison.groups)


def _metric(name: str) -> Metric:
    return metric_named(name) or METRICS["wa"]
