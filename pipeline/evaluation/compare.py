"""Comparison of two runs on the same test utterances: is the difference significant?

There are two tests. For every metric, a paired bootstrap scores both runs on the same bootstrap
samples and gives the difference, second - first, with an interval and a p value. It draws single
utterances or whole groups of them (see :mod:`.groups`). For accuracy, if the runs predict one
class, there is McNemar's exact test, which always counts single utterances. Both tests condition on
the trained weights: they estimate what other utterances of the same kind would change. The spread
over seeds shows what another training would change.

McNemar's test needs one outcome per utterance and run. Seeds are not additional utterances: with
all pairs of seeds, the test would find differences that do not exist; a majority vote would test
another (better) system; and the pairing of seeds is arbitrary. With several seeds, an utterance
therefore counts for the run that has more correct seeds on it, and not at all if the numbers are
equal. This is the sign test; with one seed it is McNemar's test. It is fair only for equal numbers
of seeds, because many seeds are rarely all correct or all wrong. If one run has more seeds, only as
many of its seeds are used as the other run has, the lowest ones.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import PipelineError, UsageError, unknown
from ..option_texts import path_of
from .bootstrap import RESAMPLES, bootstrap, interval, metric_differences, p_value
from .groups import counted_groups
from .metrics import AlignedPredictions, align_seeds, pooled_scores
from .predictions import RunPredictions, groups_of, read_predictions
from .registry import METRIC_PLUGINS, METRICS, Metric
from .scorers import metric_named, scorer_of

FEWEST_RESAMPLES = 100
_SMALLEST_EXACT_P = 1e-300  # smaller p values of an exact test may be rounded to 0


@dataclass(frozen=True)
class Difference:
    """One metric of two runs, pooled over folds and averaged over the seeds of each run.

    ``difference`` is second - first. The intervals [low, high] contain 95 % of the samples.
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
    """The numbers of utterances on which one run has more correct seeds, of ``seeds`` per run."""

    first_better: int
    second_better: int
    seeds: int
    p: float

    def p_text(self) -> str:
        """Return the p value as text with its sign: ``= 0.03``, or ``< 1e-300``."""
        return p_text(self.p, _SMALLEST_EXACT_P, "= ")


@dataclass(frozen=True)
class RunComparison:
    """The result of a comparison; ``seeds`` are those of the first and of the second run.

    ``groups`` holds what the bootstrap draws: ``by`` (such as ``dialogue``) and ``number``.
    ``mcnemar`` is ``None`` if the runs do not predict one class.
    """

    first: Path
    second: Path
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    utterances: int
    resamples: int
    groups: dict[str, Any]
    metrics: dict[str, Difference]
    mcnemar: McNemar | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {**asdict(self), "first": str(self.first), "second": str(self.second)}

    def p_text(self, p: float, equals: str = "") -> str:
        """Return a p value of the bootstrap as text; see :func:`p_text`."""
        return p_text(p, 2 / (self.resamples + 1), equals)

    def drawn(self) -> str:
        """Return what the bootstrap draws, such as ``31 dialogues``."""
        return counted_groups(self.groups)

    def __str__(self) -> str:
        """Return the comparison as text for the terminal."""
        lines = [
            f"two runs on the same {self.utterances} test utterances",
            f"  first:  {self.first}, {_seeds(self.seeds[0])}",
            f"  second: {self.second}, {_seeds(self.seeds[1])}",
            *(f"  note: {note}" for note in self.notes),
        ]
        known = {name: metric_named(name) or METRICS["wa"] for name in self.metrics}
        width = max(14, *(len(metric.title) + 2 for metric in known.values()))
        cell = 22 if all(metric.percent for metric in known.values()) else 24
        titles = f"{'first':>{cell}}{'second':>{cell}}{'second - first':>{cell + 2}}{'p':>10}"
        lines.append(f"  {'':{width}}{titles}")
        for name, row in self.metrics.items():
            metric = known[name]
            cells = (
                f"{with_interval(metric, row.first, row.first_ci95):>{cell}}"
                f"{with_interval(metric, row.second, row.second_ci95):>{cell}}"
                f"{with_interval(metric, row.difference, row.difference_ci95, '+'):>{cell + 2}}"
                f"{self.p_text(row.p):>10}"
            )
            lines.append(f"  {metric.title:{width}}{cells}")
        percent = "in %, " if all(metric.percent for metric in known.values()) else ""
        lines.append(
            f"  {percent}folds pooled, mean over seeds; [95 % interval] and p by a paired "
            f"bootstrap of {self.drawn()}, {self.resamples} resamples"
        )
        if (test := self.mcnemar) is not None:
            seeds = "one seed" if test.seeds == 1 else f"{test.seeds} seeds"
            lines.append(
                f"  McNemar's exact test of accuracy, {seeds} per run: first better on "
                f"{test.first_better} utterances, second on {test.second_better}, p {test.p_text()}"
            )
        return "\n".join(lines)


def compare(
    first: str | Path | Any,
    second: str | Path | Any,
    metric: str | None = None,
    *,
    resamples: int = RESAMPLES,
    groups: str | None = None,
) -> RunComparison:
    """Compare two run folders that test the same utterances; their seeds may differ in number.

    Args:
        first: a run or its folder, such as the baseline.
        second: another run or its folder.
        metric: the metric to compare; by default all.
        resamples: the number of bootstrap samples; p values are at least 2 / (resamples + 1).
        groups: what the bootstrap draws: ``speaker``, ``session``, ``dialogue`` or ``utterance``;
            by default dialogues where there are enough of them, see :mod:`.groups`.

    Raises:
        UsageError: a folder has no predictions, the runs test different utterances or have
            different labels, a metric is unknown, ``resamples`` is too small, or the utterances
            cannot be grouped so.
        PipelineError: a file of predictions is damaged.
    """
    first, second = path_of(first), path_of(second)
    METRIC_PLUGINS.add_known()
    if metric is not None and metric_named(metric) is None:
        metric = METRIC_PLUGINS.admit(metric)
    if resamples < FEWEST_RESAMPLES:
        raise UsageError(f"resamples is {resamples}: give {FEWEST_RESAMPLES} or more")
    runs = read_predictions(first), read_predictions(second)
    _check_same_target(runs)
    aligned = _align(runs[0]), _align(runs[1])
    _check_same(runs, aligned)
    scorer = scorer_of(runs[0].targets)
    if metric is not None and metric not in scorer.metrics:
        raise unknown(f"metric of '{first}'", metric, scorer.metrics)
    ids, labels, seeds = aligned[0].ids, aligned[0].labels, len(aligned[0].seeds)
    drawn = groups_of(runs, groups)
    clusters = None if drawn.group_of is None else [drawn.group_of[id] for id in ids]
    predicted = zip(aligned[0].predicted, aligned[1].predicted, strict=True)
    units = scorer.units(labels, [(*row, *other) for row, other in predicted], clusters)
    samples = bootstrap(units, resamples)
    pooled = [pooled_scores(run.parts, scorer).values() for run in runs]
    over_classes = runs[0].targets.over_classes
    metrics = {}
    for name in samples if metric is None else (metric,):
        first_score, second_score = (fmean(score[name] for score in scores) for scores in pooled)
        first_samples, second_samples = samples[name][:, :seeds], samples[name][:, seeds:]
        difference_samples = metric_differences(first_samples, second_samples)
        metrics[name] = Difference(
            first_score,
            interval(first_samples.mean(axis=1)),
            second_score,
            interval(second_samples.mean(axis=1)),
            second_score - first_score,
            interval(difference_samples),
            p_value(difference_samples),
        )
    return RunComparison(
        first,
        second,
        (aligned[0].seeds, aligned[1].seeds),
        len(ids),
        resamples,
        drawn.as_json(),
        metrics,
        mcnemar(*map(_classes_alone, aligned)) if over_classes == "emotion" else None,
        (*_notes(runs), *drawn.notes()),
    )


def mcnemar(first: AlignedPredictions, second: AlignedPredictions) -> McNemar:
    """Test whether two runs are correct equally often, on the same utterances in the same order.

    The docstring of the module explains the counting with several seeds. The p value is exact and
    two-sided: that of a fair coin over the utterances on which one run is better, and 1 if there
    are none.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 -- a second to import

    seeds = min(len(first.seeds), len(second.seeds))
    better = [0, 0]
    rows = zip(first.labels, first.predicted, second.predicted, strict=True)
    for label, first_row, second_row in rows:
        lead = second_row[:seeds].count(label) - first_row[:seeds].count(label)
        if lead:
            better[lead > 0] += 1
    p = float(binomtest(better[0], sum(better)).pvalue) if any(better) else 1.0
    return McNemar(better[0], better[1], seeds, p)


def p_text(p: float, smallest: float, equals: str = "") -> str:
    """Return a p value as text, after ``equals``.

    If ``p`` is not more than the ``smallest`` value that the test can give, the text is ``< …``,
    with the smallest value rounded up.
    """
    if p > smallest:
        return f"{equals}{p:.2g}"
    digit = 10.0 ** (math.floor(math.log10(smallest)) - 1)
    return f"< {math.ceil(round(smallest / digit, 6)) * digit:.2g}"


def _classes_alone(aligned: AlignedPredictions) -> AlignedPredictions:
    """Return predictions of one class and of attributes without the attributes."""
    if isinstance(aligned.labels[0], str):
        return aligned
    labels = tuple(label[0] for label in aligned.labels)
    return replace(
        aligned,
        labels=labels,
        predicted=tuple(tuple(p[0] for p in row) for row in aligned.predicted),
    )


def _align(run: RunPredictions) -> AlignedPredictions:
    aligned = align_seeds(run.parts)
    if aligned is None:
        raise PipelineError(
            f"the seeds of '{run.run}' do not test the same utterances once each, so its folds "
            "cannot be pooled: train it with a protocol that tests each utterance once"
        )
    return aligned


def _check_same_target(runs: tuple[RunPredictions, RunPredictions]) -> None:
    first, second = (",".join(run.targets.names) for run in runs)
    if first != second:
        raise UsageError(
            f"'{runs[0].run}' predicts {first} and '{runs[1].run}' {second}: compare runs with the "
            "same --target"
        )


def _check_same(
    runs: tuple[RunPredictions, RunPredictions],
    aligned: tuple[AlignedPredictions, AlignedPredictions],
) -> None:
    first, second = (dict(zip(run.ids, run.labels, strict=True)) for run in aligned)
    unshared = len(first.keys() ^ second.keys())
    relabelled = sum(label != second.get(id, label) for id, label in first.items())
    if unshared or relabelled:
        raise UsageError(
            f"'{runs[0].run}' and '{runs[1].run}' have different test utterances: {unshared} are "
            f"in one run only, and {relabelled} have different labels; compare runs of the same "
            "dataset, classes and protocol"
        )


def _notes(runs: tuple[RunPredictions, RunPredictions]) -> tuple[str, ...]:
    folds = [_folds(run) for run in runs]
    if None in folds:  # a run has no folds.json, so only the test parts are compared
        folds = [{frozenset(part.ids) for part in run.parts} for run in runs]
    if folds[0] == folds[1]:
        return ()
    return ("their folds differ, so a difference may not be due to the heads alone",)


def _folds(run: RunPredictions) -> set[Any] | None:
    """Return the parts of each fold from the run's ``folds.json``, without the names of folds."""
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


def with_interval(metric: Metric, value: float, ci95: Sequence[float], sign: str = "") -> str:
    """Return a value of a metric and its interval; ``sign`` "+" marks positive numbers."""
    return f"{metric.text(value, sign)} [{metric.interval(ci95, sign)}]"
