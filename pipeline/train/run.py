"""A finished run, and its scores as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.groups import counted_groups
from ..evaluation.registry import METRICS


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
            f"{metrics['test_utterances']} test utterances, {len(metrics['classes'])} classes",
            *(f"  note: {note}" for note in self.notes),
            *(f"  left out: {count} ({why})" for why, count in metrics["excluded"].items()),
        ]
        if context := metrics.get("context_turns"):
            lines.append(f"  read as context of their dialogues: {context} of those left out")
        rows = {metrics["head"]: metrics["aggregate"], "chance": metrics["chance"]}
        if tests:  # a row for each pair of training and test corpora
            several = seeds > 1
            rows = {}
            for name, of_test in tests.items():
                rows[f"{metrics['dataset']} → {name}"] = of_test["aggregate"]
                rows[f"chance on {name}"] = of_test["chance"]
        table = score_table(rows, several, metrics.get("intervals"))
        return "\n".join([*lines, *table, f"  {self.path}"])

    def as_json(self) -> dict[str, Any]:
        """Return the folder and the scores as JSON values."""
        return {"run": str(self.path), **self.metrics}


def score_table(
    rows: Mapping[str, Mapping[str, Any]], several: bool, drawn: Mapping[str, Any] | None
) -> list[str]:
    """Return the lines of a table of aggregated scores.

    ``several`` if they are over several trainings; ``drawn`` is what the bootstrap of the intervals
    drew, ``intervals`` in ``metrics.json``.
    """
    # A run may be older than an installed metric, or have one that is not installed here.
    metrics = [metric for metric in METRICS if all(metric in scored for scored in rows.values())]
    width = max(14, *(len(name) + 1 for name in rows))
    lines = [f"  {'':{width}}" + "".join(f"{METRICS[metric].title:>14}" for metric in metrics)]
    for name, scored in rows.items():
        cells = (_cell(scored[metric], several) for metric in metrics)
        lines.append(f"  {name:{width}}{''.join(f'{cell:>14}' for cell in cells)}")
        by_chance = name.startswith("chance")
        if several and not by_chance:
            pooled = (f"{100 * scored[metric]['pooled']:.1f}" for metric in metrics)
            lines.append(f"  {'  pooled':{width}}{''.join(f'{cell:>14}' for cell in pooled)}")
        if all(scored[metric]["pooled_ci95"] for metric in metrics) and not by_chance:
            intervals = (_interval(scored[metric]["pooled_ci95"]) for metric in metrics)
            lines.append(f"  {'  95 %':{width}}{''.join(f'{cell:>14}' for cell in intervals)}")
    lines.append(
        f"  {'mean ± std over folds and seeds, ' if several else ''}in %; "
        "chance: always the most frequent class of the training part"
    )
    lines.append(
        f"  {'pooled: all folds scored together; ' if several else ''}95 %: "
        f"{'its ' if several else ''}bootstrap interval over {counted_groups(drawn)} of the test "
        f"part{'s' if several else ''}, without the variance of training"
    )
    return lines


def validation_text(column: str | None) -> str:
    """Return how the validation part was cut, if not by the rule of the protocol."""
    return f" with validation by {column}" if column else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _interval(bounds: Sequence[float]) -> str:
    return " – ".join(f"{100 * bound:.1f}" for bound in bounds)


def _cell(scored: dict[str, float | None], several: bool) -> str:
    mean, std = scored["mean"], scored["std"]
    if not several or std is None:
        return f"{100 * (mean or 0):.1f}"
    return f"{100 * (mean or 0):.1f} ± {100 * std:.1f}"
