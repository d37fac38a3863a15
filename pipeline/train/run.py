"""A finished run, and its scores as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.groups import counted_groups
from ..evaluation.registry import Metric
from ..evaluation.scorers import metric_named
from ..targets import EMOTION, Targets

_MOST_COLUMNS = 6
_TOGETHER = "seeds together"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the content of its ``metrics.json``."""

    path: Path
    metrics: dict[str, Any]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return the scores."""
        metrics = self.metrics
        several = len(metrics["folds"]) > 1
        folds, seeds = (len({fold[key] for fold in metrics["folds"]}) for key in ("fold", "seed"))
        left = metrics.get("not_trained", [])
        of_folds = f"{folds} of {_counted(folds + len(left), 'fold')}"
        tests = metrics.get("tests", {})
        lines = [
            f"{metrics['head']} on {metrics['dataset']}, {metrics['protocol']}"
            f"{validation_text(metrics.get('validation'))}: "
            f"{of_folds if left else _counted(folds, 'fold')} x {_counted(seeds, 'seed')}, "
            f"{metrics['test_utterances']} test utterances, {targets_in(metrics)}",
            *(f"  note: {note}" for note in self.notes),
            *(f"  left out: {count} ({why})" for why, count in metrics["excluded"].items()),
        ]
        if context := metrics.get("context_turns"):
            lines.append(f"  read as context of their dialogues: {context} of those left out")
        rows = {}
        if tests:  # a row for each pair of training and test corpora
            several = seeds > 1
            for name, of_test in tests.items():
                rows[f"{metrics['dataset']} → {name}"] = of_test["aggregate"]
                rows[f"chance on {name}"] = of_test["chance"]
        else:
            rows[metrics["head"]] = metrics["aggregate"]
            if "seeds_together" in metrics:
                rows[_TOGETHER] = metrics["seeds_together"]
            rows["chance"] = metrics["chance"]
        table = score_table(rows, several, self._drawn(), targets_in(metrics))
        if _TOGETHER in rows:
            table.append(f"  {_TOGETHER}: scores of the mean of their predictions, per utterance")
        return "\n".join([*lines, *table, f"  {self.path}"])

    def as_json(self) -> dict[str, Any]:
        """Return the folder and the scores as JSON values."""
        return {"run": str(self.path), **self.metrics}

    def _drawn(self) -> str:
        """Return what the bootstrap of the intervals drew, of each test corpus if it is known."""
        of_tests = {name: of.get("intervals") for name, of in self.metrics.get("tests", {}).items()}
        if not of_tests or None in of_tests.values():
            return counted_groups(self.metrics.get("intervals"))
        return ", ".join(f"{counted_groups(groups)} ({name})" for name, groups in of_tests.items())


def targets_in(metrics: Mapping[str, Any]) -> Targets:
    """Return what a run predicts, from its ``metrics.json``; older runs predict the emotion."""
    return Targets(tuple(metrics.get("target", EMOTION)), tuple(metrics["classes"]))


def metrics_in(*scored: Mapping[str, Any]) -> dict[str, Metric]:
    """Return name → metric of the scores that several runs have, in their order.

    A run may be older than an installed metric, or have one that is not installed here.
    """
    first, *others = scored
    common = (name for name in first if all(name in other for other in others))
    return {name: metric for name in common if (metric := metric_named(name))}


def score_table(
    rows: Mapping[str, Mapping[str, Any]],
    several: bool,
    drawn: str,
    targets: Targets,
) -> list[str]:
    """Return the lines of a table of aggregated scores.

    ``several`` if they are over several trainings; ``drawn`` is what the bootstrap of the intervals
    drew, such as ``31 dialogues``. ``targets`` is what the runs predict.
    """
    metrics = metrics_in(*rows.values())
    shown = list(metrics)
    if len(shown) > _MOST_COLUMNS:  # of several attributes: all CCCs, and the means of the others
        shown = [name for name in shown if name.startswith("ccc") or not _of_one(name, targets)]
    first = max(14, *(len(name) + 1 for name in rows))
    widths = {m: max(14 if metrics[m].percent else 17, len(metrics[m].title) + 2) for m in shown}

    def line(name: str, cells: Mapping[str, str]) -> str:
        return f"  {name:{first}}{''.join(f'{cell:>{widths[key]}}' for key, cell in cells.items())}"

    lines = [line("", {name: metrics[name].title for name in shown})]
    for name, scored in rows.items():
        lines.append(line(name, {m: _cell(scored[m], metrics[m], several) for m in shown}))
        by_chance = name.startswith("chance")
        if several and not by_chance:
            lines.append(line("  pooled", {m: metrics[m].text(scored[m]["pooled"]) for m in shown}))
        if all(scored[metric]["pooled_ci95"] for metric in shown) and not by_chance:
            bounds = {m: _interval(scored[m]["pooled_ci95"], metrics[m]) for m in shown}
            lines.append(line("  95 %", bounds))
    facts = ["mean ± std over folds and seeds"] if several else []
    facts += ["in %"] if all(metrics[name].percent for name in shown) else []
    lines.append(f"  {', '.join([*facts])}{'; ' if facts else ''}chance: {targets.chance_text()}")
    lines.append(
        f"  {'pooled: all folds scored together; ' if several else ''}95 %: "
        f"{'its ' if several else ''}bootstrap interval over {drawn} of the test "
        f"part{'s' if several else ''}, without the variance of training"
    )
    return lines


def validation_text(column: str | None) -> str:
    """Return how the validation part was cut, if not by the rule of the protocol."""
    return f" with validation by {column}" if column else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _of_one(metric: str, targets: Targets) -> bool:
    """Whether a metric is that of one of several attributes."""
    return any(metric.endswith(f"_{name}") for name in targets.attributes)


def _interval(bounds: Sequence[float], metric: Metric) -> str:
    return " – ".join(map(metric.text, bounds))


def _cell(scored: dict[str, float | None], metric: Metric, several: bool) -> str:
    mean, std = scored["mean"], scored["std"]
    if not several or std is None:
        return metric.text(mean or 0)
    return f"{metric.text(mean or 0)} ± {metric.text(std)}"
