"""One HTML page on finished runs, made from the template ``report.html``.

The page is one file that needs no network and no script. Nothing is scored again here:
:mod:`..evaluation.compare` and :mod:`..evaluation.metrics` describe the comparisons and intervals.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from matplotlib.figure import Figure

from ...heads import HEADS
from ..errors import PipelineError, UsageError
from ..evaluation.compare import RunComparison, compare
from ..evaluation.groups import counted_groups
from ..evaluation.predictions import RunPredictions, read_predictions, regrouped
from ..evaluation.registry import METRIC_PLUGINS, Metric
from ..evaluation.scorers import metric_named
from ..figures.scores import interval_figure
from ..figures.style import inline
from ..figures.training import epoch_figure, with_mean
from ..option_texts import path_of
from ..output import write_output
from ..progress import progress
from ..train.run import Run, metrics_in, targets_in
from ..train.run_folder import RunFolder, names_layers_by_position
from ..train.settings import TUNABLE, TrainSettings
from .report_details import run_details
from .report_files import write_files

_CONFUSIONS = 6  # differences of confusion matrices that are shown


@dataclass(frozen=True)
class HtmlReport:
    """The page that was written, and its runs; ``files`` is the number of files in ``tables``."""

    path: Path
    runs: tuple[Path, ...]
    tables: Path | None = None
    files: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the paths as JSON values."""
        tables = {} if self.tables is None else {"tables": str(self.tables), "files": self.files}
        return {"report": str(self.path), "runs": [str(run) for run in self.runs], **tables}

    def __str__(self) -> str:
        """Return the path of the page and the number of runs."""
        count = len(self.runs)
        text = f"{self.path}: {count} run{'' if count == 1 else 's'}; open it in a browser"
        return text if self.tables is None else f"{text}\n{self.tables}: {self.files} files"


def report(
    runs: str | Path | Run | Sequence[str | Path | Run],
    out: str | Path = "report.html",
    groups: str | None = None,
    *,
    by: str | None = None,
    audio: bool = False,
    tables: str | Path | None = None,
) -> HtmlReport:
    """Write a page on one or several finished runs; a run that is given twice appears once.

    Args:
        runs: one or several runs, or their folders.
        out: the file to write, default ``report.html``; an existing file is replaced.
        groups: what the bootstrap of the intervals and comparisons draws, see
            :mod:`~mser.pipeline.evaluation.groups`; by default the intervals are those that the
            training wrote.
        by: a column of the corpus, such as ``scenario``, by whose values each run is scored too.
        audio: put the clips of the surest mistakes into the page.
        tables: a folder for each table as CSV and LaTeX, and each figure as SVG and PDF.

    Raises:
        UsageError: no run is given, a run is not finished, ``out`` is a folder, the test
            utterances of a run cannot be grouped so, or its corpus does not have the column.
        PipelineError: a file of a run is damaged.
        CacheError: ``out`` cannot be written.
    """
    several = [runs] if isinstance(runs, str | Path | Run) else runs
    out = Path(out)
    distinct = list({run.resolve(): run for run in map(path_of, several)}.values())
    if not distinct:
        raise UsageError("no run is given: give one or more folders of finished runs")
    if out.is_dir():
        raise UsageError(f"'{out}' is a folder: give the name of a file, such as report.html")
    METRIC_PLUGINS.add_known()
    names = _names(distinct)
    contents = [_run_content(run, name, groups) for run, name in zip(distinct, names, strict=True)]
    for run, content in zip(distinct, contents, strict=True):
        config = RunFolder(run).config()
        content["details"] = run_details(run, config, content["metrics"], by, audio)
    figures: list[Figure] = []
    page = _template().render(
        figures=figures,
        runs=contents,
        groups=_groups(distinct, contents, groups),
        metrics={name: m for content in contents for name, m in content["scored"].items()},
        version=version("mser"),
    )
    write_output(out, page)
    files = [] if tables is None else write_files(page, figures, Path(tables))
    return HtmlReport(out, tuple(distinct), None if tables is None else Path(tables), len(files))


@cache
def _template() -> Any:
    """Return the template; its filter ``drawn`` draws a figure and adds it to ``figures``."""
    package = files(__package__ or "")
    environment = Environment(
        loader=FunctionLoader(lambda name: package.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "score": _score, "interval": _interval}
    environment.filters |= {"unit": _unit, "drawn": _drawn, "counted": counted_groups}
    return environment.get_template("report.html")


@pass_context
def _drawn(context: Context, figure: Figure, label: str) -> Markup:
    figures: list[Figure] = context["figures"]
    figures.append(figure)
    return Markup(inline(figure, label, len(figures) - 1))  # noqa: S704 -- inline() escapes


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their paths if two names are equal."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _run_content(run: Path, name: str, groups: str | None) -> dict[str, Any]:
    """Return the content of the page about one run."""
    folder = RunFolder(run)
    config, metrics = folder.config(), folder.read_json("metrics.json")
    if groups is not None:
        metrics = regrouped(read_predictions(run), groups, metrics)
    environment = folder.read_json("environment.json")
    try:
        log = [json.loads(line) for line in _lines(run / "log.jsonl")]
        return {
            "name": name,
            "path": str(run),
            "metrics": metrics,
            "chance": metrics["chance"],
            "chance_text": targets_in(metrics).chance_text(),
            "scored": metrics_in(metrics["aggregate"], metrics["chance"]),
            "tests": metrics.get("tests", {}),
            "facts": _facts(config, metrics, environment),
            "settings": list(_settings(config)),
            "drawn": counted_groups(metrics.get("intervals")),
            "several": len(metrics["folds"]) > 1,
            "confusion": _confusion(metrics),
            **_curves(config, metrics, log),
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise PipelineError(
            f"a file of '{run}' is damaged ({error!r}): train the run again, with another --out"
        ) from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []  # the page then shows no curves


def _facts(
    config: Mapping[str, Any], metrics: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, str]:
    folds = {fold["fold"] for fold in metrics["folds"]}
    seeds = sorted({fold["seed"] for fold in metrics["folds"]})
    packages = environment["packages"].items()
    return {
        "head": metrics["head"],
        "dataset": metrics["dataset"],
        "target": str(targets_in(metrics)),
        **({"classes": ", ".join(metrics["classes"])} if metrics["classes"] else {}),
        "protocol": metrics["protocol"],
        "trainings": f"{_count(len(folds), 'fold')} x {_count(len(seeds), 'seed')} "
        f"({', '.join(map(str, seeds))})",
        "test utterances": str(metrics["test_utterances"]),
        **{
            f"{modality} encoder": f"{encoder['name']} (key {encoder['key']})"
            for modality, encoder in config["encoders"].items()
        },
        "epoch chosen by": metrics["selected_by"],
        "date": environment["date"],
        "machine": f"{environment['host']}, {environment['platform']}, "
        f"{environment['gpu'] or environment['device']}, "
        f"{_threads(environment['threads'])}",
        "packages": ", ".join(
            [f"Python {environment['python']}", *(f"{k} {v}" for k, v in packages)]
        ),
        "command": environment["command"],
        "cache": config["cache"],
    }


def _settings(config: Mapping[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    """Yield the name, value and default of each setting that is not at its default."""
    defaults = {setting.name: setting.default for setting in fields(TrainSettings)}
    for name in ("layer", "validation", "classes", "test_on", "balance", *TUNABLE):
        if name in config and config[name] != defaults[name]:
            by_position = name == "layer" and names_layers_by_position(config)
            note = " (position among the cached layers)" if by_position else ""
            yield name + note, config[name], defaults[name]
    head = HEADS.get(config["head"])
    parameters = signature(head).parameters if head else {}
    for name, value in config["head_options"].items():
        default = parameters[name].default if name in parameters else None
        default = list(default) if isinstance(default, tuple) else default
        if value != default:
            yield f"head.{name}", value, default


def _confusion(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each label; a cell holds a count and its share of the row."""
    rows = []
    confusion = metrics["pooled"].get("confusion")
    if confusion is None:
        return []
    for name, counts in zip(metrics["classes"], confusion, strict=True):
        total = sum(counts)
        cells = [{"count": n, "share": n / total if total else 0.0} for n in counts]
        rows.append({"label": name, "cells": cells, "support": total})
    return rows


def _curves(
    config: Mapping[str, Any], metrics: Mapping[str, Any], log: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the figures of the loss and of the score that chose the epoch, by epoch."""
    monitor = config["monitor"]
    metric = next(iter(metrics["aggregate"])) if monitor == "loss" else monitor
    if monitor == "loss" and "weighted_f1" in metrics["aggregate"]:
        metric = "weighted_f1"
    known = metric_named(metric)
    percent = known is None or known.percent
    trainings: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for line in log:
        trainings.setdefault((line["fold"], line["seed"]), []).append(line)
    train = [
        [(x["epoch"], x["train"]["loss"]) for x in lines if "train" in x]
        for lines in trainings.values()
    ]
    loss, score = (
        [[(x["epoch"], x["validation"][name]) for x in lines] for lines in trainings.values()]
        for name in ("loss", metric)
    )
    dots = [(fold["best_epoch"], fold["validation"][metric]) for fold in metrics["folds"]]
    title = known.title if known else metric
    losses = [*with_mean(train, "train"), *with_mean(loss, "validation")]
    scores = with_mean(score, "validation")
    return {
        "monitor": title,
        "loss_figure": epoch_figure(losses, "loss") if log else None,
        "score_figure": epoch_figure(scores, title, dots, percent) if log else None,
    }


def _groups(
    runs: Sequence[Path], contents: Sequence[Mapping[str, Any]], groups: str | None
) -> list[dict[str, Any]]:
    """Return the comparisons: of each two or more runs that test the same utterances."""
    if len(runs) < 2:
        return []
    alike: dict[Any, list[int]] = {}
    for number, run in enumerate(runs):
        alike.setdefault(_tested(read_predictions(run)), []).append(number)
    comparable = [members for members in alike.values() if len(members) > 1]
    pairs = sum(len(list(combinations(members, 2))) for members in comparable)
    with progress(pairs, "comparing runs", "pair") as bar:
        return [_group(runs, contents, members, groups, bar.update) for members in comparable]


def _tested(run: RunPredictions) -> Any:
    """Return what is predicted, and the ids of all test utterances with their labels."""
    pairs = (pair for part in run.parts for pair in zip(part.ids, part.labels, strict=True))
    return run.targets, frozenset(pairs)


def _group(
    runs: Sequence[Path],
    contents: Sequence[Mapping[str, Any]],
    members: Sequence[int],
    groups: str | None,
    tick: Any,
) -> dict[str, Any]:
    pairs: list[tuple[str, str, RunComparison]] = []
    refused = []
    for first, second in combinations(members, 2):
        try:
            comparison = compare(runs[first], runs[second], groups=groups)
            pairs.append((contents[first]["name"], contents[second]["name"], comparison))
        except PipelineError as error:  # its folds cannot be pooled
            refused.append(str(error))
        tick()
    scored = [(contents[i]["name"], contents[i]["metrics"]["aggregate"]) for i in members]
    metrics = metrics_in(*(of for _, of in scored))
    several = {contents[i]["name"]: contents[i]["confusion"] for i in members}
    return {
        "metrics": metrics,
        "utterances": contents[members[0]]["metrics"]["test_utterances"],
        "dataset": contents[members[0]]["metrics"]["dataset"],
        "drawn": _either(contents[number]["drawn"] for number in members),
        "pairs": pairs,
        "pairs_drawn": _either(comparison.drawn() for _, _, comparison in pairs),
        "confusions": _confusion_differences(pairs, several),
        "refused": list(dict.fromkeys(refused)),
        "figures": {
            f"{metric.title}{' in %' if metric.percent else ''}": interval_figure(
                [
                    (run, of[name]["pooled"], of[name]["pooled_ci95"])
                    for run, of in _ranked(scored, name, metric)
                ],
                metric,
            )
            for name, metric in metrics.items()
        },
    }


def _ranked(
    scored: Sequence[tuple[str, Mapping[str, Any]]], name: str, metric: Metric
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the runs, the best pooled score first."""
    return sorted(scored, key=lambda run: run[1][name]["pooled"], reverse=metric.larger_is_better)


def _confusion_differences(
    pairs: Sequence[tuple[str, str, RunComparison]],
    confusions: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return the second confusion matrix minus the first, in shares of the row, for few pairs."""
    differences = []
    for first, second, _ in pairs[:_CONFUSIONS]:
        before, after = confusions[first], confusions[second]
        if [row["label"] for row in before] == [row["label"] for row in after] and before:
            rows = [
                {
                    "label": row["label"],
                    "cells": [
                        b["share"] - a["share"]
                        for a, b in zip(row["cells"], other["cells"], strict=True)
                    ],
                }
                for row, other in zip(before, after, strict=True)
            ]
            differences.append({"first": first, "second": second, "rows": rows})
    return differences


def _percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}.1f}"


def _score(value: float | None, metric: Metric, sign: str = "") -> str:
    return "–" if value is None else metric.text(value, sign)


def _interval(bounds: Sequence[float] | None, metric: Metric, sign: str = "") -> str:
    return "–" if bounds is None else " … ".join(metric.text(bound, sign) for bound in bounds)


def _unit(metrics: Mapping[str, Metric], text: str = "In %, ") -> str:
    """Return the text of a caption that says that all scores are in %, if they are."""
    return text if all(metric.percent for metric in metrics.values()) else ""


def _either(texts: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(texts))


def _threads(threads: int | list[int] | None) -> str:
    """Return the threads of a run's trainings; older runs on other machines do not know them."""
    if isinstance(threads, list):
        return f"{' or '.join(map(str, threads))} threads"
    return "unknown threads" if threads is None else _count(threads, "thread")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
