"""Is one run better than another, on the same test utterances?

Two answers, both with the utterance as the unit. For every metric: the difference, second - first,
with an interval and a p value by a paired bootstrap, in which both runs are scored on the same
draws. For accuracy: McNemar's exact test. What they say of is the trained heads as they are, on
other utterances of the same kind; how much training again would change is in the seeds' spread.

McNemar's test wants one outcome an utterance and run. Seeds are no further utterances, so that
counting all their pairs would find differences where there are none, a majority vote would test
another system (a better one), and pairs of seeds are pairs by chance only. With several seeds an
utterance is therefore counted for the run of whose seeds more are right on it, and not at all where
as many are right; this is the sign test, and with one seed it is McNemar's. It is fair only between
equal numbers of seeds, since a mean over many is seldom all right or all wrong: where one run has
more, as many as the other has are taken, the lowest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from ..errors import PipelineError, UsageError, unknown
from .bootstrap import RESAMPLES, bootstrap, differences, interval, p_value, units
from .metrics import METRICS, TITLES, Outcomes, by_utterance, pooled_scores
from .predictions import RunPredictions, read_predictions

FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class Difference:
    """One metric of two runs, in [0, 1], pooled over folds and averaged over each run's seeds.

    ``difference`` is second - first; the intervals are [low, high] and hold 95 % of the draws.
    """

    first: float
    first_ci95: list[float]
    second: float
    second_ci95: list[float]
    difference: float
    difference_ci95: list[float]
    p: float


@dataclass(frozen=True)
class McNemar:
    """On how many utterances one run is right more often, over ``seeds`` seeds of each run."""

    first_better: int
    second_better: int
    seeds: int
    p: float


@dataclass(frozen=True)
class RunComparison:
    """What was found; ``seeds`` are those of the first and of the second run."""

    first: Path
    second: Path
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    utterances: int
    resamples: int
    metrics: dict[str, Difference]
    mcnemar: McNemar
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "first": str(self.first), "second": str(self.second)}

    def __str__(self) -> str:
        """Return it as a person wants to read it."""
        test = self.mcnemar
        seeds = "one seed" if test.seeds == 1 else f"{test.seeds} seeds"
        lines = [
            f"two runs on the same {self.utterances} test utterances",
            f"  first:  {self.first}, {_seeds(self.seeds[0])}",
            f"  second: {self.second}, {_seeds(self.seeds[1])}",
            *(f"  note: {note}" for note in self.notes),
            f"  {'':14}{'first':>20}{'second':>20}{'second - first':>22}{'p':>10}",
        ]
        for metric, found in self.metrics.items():
            cells = (
                f"{with_interval(found.first, found.first_ci95):>20}"
                f"{with_interval(found.second, found.second_ci95):>20}"
                f"{with_interval(found.difference, found.difference_ci95, '+'):>22}"
                f"{found.p:>10.2g}"
            )
            lines.append(f"  {TITLES[metric]:14}{cells}")
        lines += [
            f"  in %, folds pooled, mean over seeds, [95 % interval] and p by a paired bootstrap "
            f"of utterances, {self.resamples} draws",
            f"  McNemar's exact test of accuracy, {seeds} a run: first better on "
            f"{test.first_better} utterances, second on {test.second_better}, p = {test.p:.2g}",
        ]
        return "\n".join(lines)


def compare(
    first: Path,
    second: Path,
    metric: str | None = None,
    *,
    resamples: int = RESAMPLES,
    groups: Mapping[str, str] | None = None,
) -> RunComparison:
    """Compare two run folders that test the same utterances; their seeds may differ in number.

    Args:
        first: the folder of a run, such as the baseline.
        second: the folder of another.
        metric: the one to compare; by default all of them.
        resamples: draws of the bootstrap; no p value of it is below 2 / (resamples + 1).
        groups: id → its dialogue or speaker, to draw these whole instead of single utterances.

    Raises:
        UsageError: a folder holds no predictions, the runs test different utterances or have other
            labels, a metric is unknown, ``resamples`` is too small, or an id has no group.
        PipelineError: a file of predictions is damaged.
    """
    if metric is not None and metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if resamples < FEWEST_RESAMPLES:
        raise UsageError(f"resamples is {resamples}: give {FEWEST_RESAMPLES} or more")
    runs = read_predictions(first), read_predictions(second)
    one, other = (_outcomes(run) for run in runs)
    _check_same(runs, one, other)
    if groups is not None and not groups.keys() >= set(one.ids):
        raise UsageError(f"groups does not name '{min(set(one.ids) - groups.keys())}': name all")
    clusters = None if groups is None else [groups[id] for id in one.ids]
    both = [(*a, *b) for a, b in zip(one.predicted, other.predicted, strict=True)]
    drawn = bootstrap(units(one.labels, both, clusters), resamples)
    pooled = [pooled_scores(run.parts).values() for run in runs]
    found = {}
    for name in METRICS if metric is None else (metric,):
        value, second_value = (fmean(seed[name] for seed in seeds) for seeds in pooled)
        here, there = drawn[name][:, : len(one.seeds)], drawn[name][:, len(one.seeds) :]
        moved = differences(here, there)
        found[name] = Difference(
            value,
            interval(here.mean(axis=1)),
            second_value,
            interval(there.mean(axis=1)),
            second_value - value,
            interval(moved),
            p_value(moved),
        )
    return RunComparison(
        first,
        second,
        (one.seeds, other.seeds),
        len(one.ids),
        resamples,
        found,
        mcnemar(one, other),
        _notes(runs),
    )


def mcnemar(first: Outcomes, second: Outcomes) -> McNemar:
    """Test whether two runs are right equally often, on the same utterances in the same order.

    See the module's docstring for what is counted where there are several seeds. The p value is
    exact and two-sided, that of a fair coin for the utterances on which one run is better; 1 where
    there is none.
    """
    seeds = min(len(first.seeds), len(second.seeds))
    better = [0, 0]
    for label, one, other in zip(first.labels, first.predicted, second.predicted, strict=True):
        ahead = other[:seeds].count(label) - one[:seeds].count(label)
        if ahead:
            better[ahead > 0] += 1
    p = float(binomtest(better[0], sum(better)).pvalue) if any(better) else 1.0
    return McNemar(better[0], better[1], seeds, p)


def _outcomes(run: RunPredictions) -> Outcomes:
    outcomes = by_utterance(run.parts)
    if outcomes is None:
        raise PipelineError(
            f"'{run.run}' does not test the same utterances once with every seed, so that its "
            "folds cannot be pooled: train it by a protocol that does"
        )
    return outcomes


def _check_same(
    runs: tuple[RunPredictions, RunPredictions], first: Outcomes, second: Outcomes
) -> None:
    one, other = (dict(zip(some.ids, some.labels, strict=True)) for some in (first, second))
    alone = len(one.keys() ^ other.keys())
    relabelled = sum(label != other.get(id, label) for id, label in one.items())
    if alone or relabelled:
        raise UsageError(
            f"'{runs[0].run}' and '{runs[1].run}' differ in what they test: {alone} utterances are "
            f"in one of them only, and {relabelled} have another label; a comparison needs the "
            "same dataset, classes and protocol"
        )


def _notes(runs: tuple[RunPredictions, RunPredictions]) -> tuple[str, ...]:
    folds = [_folds(run) for run in runs]
    if None in folds:  # not both say what they trained on
        folds = [{frozenset(part.ids) for part in run.parts} for run in runs]
    if folds[0] == folds[1]:
        return ()
    return ("their folds differ, so that a difference is not one of the heads alone",)


def _folds(run: RunPredictions) -> set[Any] | None:
    """Return the parts of each fold, whatever it is called, by the run's ``folds.json``."""
    try:
        folds = json.loads((run.run / "folds.json").read_text(encoding="utf-8"))["folds"]
        return {
            tuple(frozenset(fold[part]) for part in ("train", "validation", "test"))
            for fold in folds
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def with_interval(value: float, ci95: Sequence[float], sign: str = "") -> str:
    """Return a value in [0, 1] and its interval in %; ``sign`` "+" shows that of positive ones."""
    low, high = ci95
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
