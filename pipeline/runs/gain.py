"""How much more a system of an ablation reaches than others of the same table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PipelineError
from ..evaluation.compare import Difference, compare, with_interval
from ..train.run import Run


@dataclass(frozen=True)
class Gain:
    """A system beside the best of those that it is held against, by one metric."""

    against: str
    difference: Difference

    def __str__(self) -> str:
        """Return the difference in %, with its interval, and over whom."""
        _, value, *bounds = self.cells()
        return f"{with_interval(value, bounds, '+')} over {self.against}"

    def cells(self) -> list[Any]:
        """Return over whom, the difference and its bounds, in [0, 1]."""
        return [self.against, self.difference.difference, *self.difference.difference_ci95]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, in [0, 1]."""
        against, value, *bounds = self.cells()
        return {"against": against, "gain": value, "ci95": bounds, "p": self.difference.p}


def gain(run: Run, others: Mapping[str, Run], metric: str) -> Gain | None:
    """Return by how much a run exceeds the best of others, seeds averaged and folds pooled.

    The interval is that of :func:`compare`: a paired bootstrap of test utterances. That the best is
    chosen by the same scores makes the gain too small rather than too large. ``None`` where the
    runs cannot be compared, such as with folds that test an utterance more than once.
    """

    def score(name: str) -> float:
        return float(others[name].metrics["aggregate"][metric]["mean"])

    best = max(others, key=score)
    try:
        found = compare(others[best].path, run.path, metric)
    except PipelineError:
        return None
    return Gain(best, found.metrics[metric])
