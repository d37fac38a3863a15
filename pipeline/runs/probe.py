"""Probe the cached layers: the linear head on each layer of each modality, and on all layers."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from ...cache.storage.local import LocalFolder
from ..evaluation.registry import METRICS, Metric
from ..evaluation.scorers import metric_named
from ..figures.scores import layer_figure
from ..figures.style import pdf, svg
from ..train.jobs import examples_of
from ..train.run import Run
from ..train.runner import train_heads
from ..train.settings import TrainSettings

CONCAT = "concat"
_COLUMNS = ("pooled", "ci95_low", "ci95_high", "mean", "std", "validation")


@dataclass(frozen=True)
class ProbedLayer:
    """The scores of the linear head on one layer, or on all of them side by side."""

    modality: str
    """The modality, or several joined by ``+``."""
    layer: int | str
    """The encoder's number of the layer, or ``concat``."""
    scores: Mapping[str, Mapping[str, float | None]]
    """Metric → ``pooled`` over the folds and its interval, ``mean`` and ``std`` over the folds, and
    the mean ``validation`` score."""
    run: Path
    """The run folder."""


@dataclass(frozen=True)
class Probe:
    """The table of a probe."""

    path: Path
    """The folder that holds ``probe.csv``, ``.json``, ``.svg`` and ``.pdf``, and the runs."""
    facts: Mapping[str, Any]
    """The dataset, the protocol, the metric of the picture, and how many utterances are tested."""
    layers: tuple[ProbedLayer, ...]
    """The rows, by modality and layer."""

    def __str__(self) -> str:
        """Return the table, by the metric of the picture and the others."""
        facts = self.facts
        first = facts["metric"]
        names = [first, *(name for name in self.layers[0].scores if name != first)]
        metrics = {name: _metric(name) for name in names}
        titles = [metric.title for metric in metrics.values()]
        widths = [max(14, len(title) + 2) for title in titles]
        lines = [
            f"linear probe of {facts['dataset']}, {facts['protocol']}: "
            f"{facts['test_utterances']} test utterances",
            f"  {'':24}{titles[0]:>{widths[0]}}{'95 %':>17}{'validation':>12}"
            + "".join(f"{t:>{width}}" for t, width in zip(titles[1:], widths[1:], strict=True)),
        ]
        for row in self.layers:
            scores = row.scores[first]
            low, high = scores["ci95_low"], scores["ci95_high"]
            metric = metrics[first]
            interval = "" if low is None else f"{metric.text(low)} – {metric.text(high or 0)}"
            cells = [f"{_text(metric, scores['pooled']):>{widths[0]}}", f"{interval:>17}"]
            cells.append(f"{_text(metric, scores['validation']):>12}")
            for name, width in zip(names[1:], widths[1:], strict=True):
                cells.append(f"{_text(metrics[name], row.scores[name]['pooled']):>{width}}")
            lines.append(f"  {f'{row.modality} {row.layer}':24}{''.join(cells)}")
        return "\n".join(
            [
                *lines,
                f"  {'in %, ' if all(m.percent for m in metrics.values()) else ''}all folds scored "
                "together; choose a layer by the column validation, not by its test score",
                f"  {self.path / 'probe.svg'}",
            ]
        )

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        rows = [
            {
                "modality": row.modality,
                "layer": row.layer,
                "scores": row.scores,
                "run": str(row.run),
            }
            for row in self.layers
        ]
        return {**self.facts, "path": str(self.path), "layers": rows}

    def csv(self) -> str:
        """Return a line for each layer and metric."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["modality", "layer", "metric", *_COLUMNS])
        for row in self.layers:
            for metric, scores in row.scores.items():
                writer.writerow([row.modality, row.layer, metric, *(scores[c] for c in _COLUMNS)])
        return text.getvalue()


def probe(
    settings: TrainSettings,
    out: Path,
    metric: str,
    on_finished: Callable[[Run], None] = lambda run: None,
) -> Probe:
    """Train the linear head on each cached layer of each modality, and on all layers side by side.

    Each row is a run below ``out / "runs"``; a finished run is not trained again.

    Args:
        settings: the settings of all runs; ``layer`` and ``out`` are replaced.
        out: the folder for the runs, the table and the picture.
        metric: the metric of the picture.
        on_finished: called with each finished run.

    Raises:
        UsageError, CacheError, PipelineError: see :func:`train_heads`.
    """
    systems = list(_systems(settings, out / "runs"))
    runs = train_heads([system for *_, system in systems], on_finished)
    rows = tuple(
        ProbedLayer(modality, layer, _scores(run), run.path)
        for (modality, layer, _), run in zip(systems, runs, strict=True)
    )
    first = runs[0].metrics
    facts = {
        "dataset": settings.dataset,
        "protocol": first["protocol"],
        "metric": metric,
        "test_utterances": first["test_utterances"],
        "notes": list(runs[0].notes),
    }
    table, folder = Probe(out, facts, rows), LocalFolder(out)
    folder.write("probe.csv", table.csv().encode())
    folder.write("probe.json", (json.dumps(table.as_json(), indent=2) + "\n").encode())
    picture = _picture(table)
    folder.write("probe.svg", svg(picture).encode())
    folder.write("probe.pdf", pdf(picture))
    return table


def _systems(settings: TrainSettings, runs: Path) -> Iterator[tuple[str, int | str, TrainSettings]]:
    """Yield the modality, the layer and the settings of each row."""
    for modality, encoder in settings.encoders.items():
        alone = replace(settings, encoders={modality: encoder})
        stored = examples_of(alone).entries[modality].layers
        for layer in stored:
            out = runs / f"{modality}-{layer}"
            yield modality, layer, replace(alone, layer=str(layer), out=out)
        if len(stored) > 1:
            out = runs / f"{modality}-{CONCAT}"
            yield modality, CONCAT, replace(alone, layer=CONCAT, out=out)
    if len(settings.encoders) > 1:
        together = "+".join(settings.encoders)
        out = runs / f"{together}-{CONCAT}"
        yield together, CONCAT, replace(settings, layer=CONCAT, out=out)


def _scores(run: Run) -> dict[str, dict[str, float | None]]:
    scores = {}
    for metric, aggregate in run.metrics["aggregate"].items():
        if metric_named(metric) is None:
            continue  # of a plug-in that is not installed here
        low, high = aggregate["pooled_ci95"] or (None, None)
        scores[metric] = {
            "pooled": aggregate["pooled"],
            "ci95_low": low,
            "ci95_high": high,
            "mean": aggregate["mean"],
            "std": aggregate["std"],
            "validation": fmean(fold["validation"][metric] for fold in run.metrics["folds"]),
        }
    return scores


def _picture(table: Probe) -> Figure:
    metric = table.facts["metric"]
    curves: dict[str, list[tuple[int, Mapping[str, float | None]]]] = {}
    whole: dict[str, float | None] = {}
    for row in table.layers:
        if isinstance(row.layer, int):
            curves.setdefault(row.modality, []).append((row.layer, row.scores[metric]))
        else:
            whole[row.modality] = row.scores[metric]["pooled"]
    title = f"Linear probe of {table.facts['dataset']}, {table.facts['protocol']}"
    return layer_figure(title, _metric(metric), curves, whole)


def _metric(name: str) -> Metric:
    return metric_named(name) or METRICS["wa"]


def _text(metric: Metric, value: float | None) -> str:
    return "" if value is None else metric.text(value)
