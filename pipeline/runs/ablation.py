"""Ablations: train the systems of a table, such as a paper's, by one command."""

import csv
import io
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Required

import torch
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from ...cache import NotFoundError
from ...cache.storage.local import LocalFolder
from ..compute.device import chosen_device
from ..errors import UsageError, unknown
from ..evaluation.registry import METRICS, Metric
from ..evaluation.scorers import metric_named, scorer_of
from ..feature_cache import FeatureCache
from ..modalities import MODALITIES, modality_names
from ..targets import Targets
from ..train.presets import CHOICES, Choices, combined, preset, read, settings_of
from ..train.run import Run
from ..train.run_folder import RunFolder
from ..train.runner import train_heads
from ..train.settings import TrainSettings
from ..validation import checked, file_table, one_of
from .evaluate import evaluate
from .gain import GainOverBest, gain_over_best


def _known_metric(name: str) -> str:
    if metric_named(name) is None:
        raise PydanticCustomError("unknown", "unknown", {"kind": "metric", "known": [*METRICS]})
    return name


MetricName = Annotated[str, AfterValidator(_known_metric)]
"""The name of a metric of any target."""


@file_table
class AblationKeys(TypedDict, total=False):
    """The keys of an ablation file."""

    title: Required[str]
    preset: Required[str]
    systems: Required[list[dict[str, Any]]]
    source: str
    note: str
    seeds: list[int]
    metrics: list[MetricName]
    set: dict[str, Any]
    missing: list[Annotated[str, one_of("modality", MODALITIES)]]
    reproduction: dict[str, Any]  # see reproduction.py


@file_table
class SystemKeys(Choices, total=False):
    """The keys of a system in it, besides those of a preset that say what is trained."""

    name: Required[str]
    against: list[str]
    encoders: dict[str, str]
    paper: dict[MetricName, int | float]
    preset: str
    set: dict[str, Any]


@dataclass(frozen=True)
class System:
    """One row: its name, its settings, and the paper's scores, by metric.

    They are in %, and those of metrics that are not percentages, such as CCC, as they are.
    ``against`` are the names of other systems; the row shows the gain over the best of them.
    """

    name: str
    settings: TrainSettings
    paper: Mapping[str, float]
    against: Sequence[str] = ()


@dataclass(frozen=True)
class SystemScores:
    """The scores of a system by metric, ``None`` until it is trained.

    ``missing`` is the modality that is hidden in the test, if any. ``gain`` is in the first metric
    of the table; it is ``None`` until the systems of ``against`` are trained too.
    """

    system: System
    missing: str | None
    aggregate: Mapping[str, Any] | None
    gain: GainOverBest | None = None


@dataclass(frozen=True)
class Ablation:
    """A table with the systems trained so far, and the facts above it."""

    path: Path
    title: str
    facts: Sequence[str]
    metrics: Sequence[str]
    rows: Sequence[SystemScores]

    def __str__(self) -> str:
        """Return the table and its path."""
        return f"{self.markdown()}\n{self.path}"

    def markdown(self) -> str:
        """Return the table in Markdown."""
        papers = [m for m in self.metrics if any(m in row.system.paper for row in self.rows)]
        head = ["system"]
        for metric in self.metrics:
            title = _metric(metric).title
            head += [title, f"{title}, paper"][: 1 + (metric in papers)]
        gains = any(row.system.against for row in self.rows)
        if gains:
            head.append(f"gain in {_metric(self.metrics[0]).title} [95 %]")
        lines = [f"# {self.title}", "", *(f"- {fact}" for fact in self.facts), ""]
        lines += [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        for row in self.rows:
            cells = [row.system.name + (f", without {row.missing}" if row.missing else "")]
            for metric in self.metrics:
                cells.append(_cell(row.aggregate, metric))
                if metric in papers:
                    of_paper = None if row.missing else row.system.paper.get(metric)
                    digits = scale(_metric(metric))[1]
                    cells.append("" if of_paper is None else f"{of_paper:.{digits}f}")
            if gains:
                cells.append(str(row.gain or ""))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, ""])

    def csv(self) -> str:
        """Return a line for each system, missing modality and metric; scores are in [0, 1]."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        names = ("mean", "std", "pooled", "pooled_std")
        bounds = ("ci95_low", "ci95_high")
        gains = ("against", "gain", "gain_ci95_low", "gain_ci95_high")
        writer.writerow(["system", "missing", "metric", *names, *bounds, "paper_percent", *gains])
        for row in self.rows:
            for metric in self.metrics:
                scored = (row.aggregate or {}).get(metric, {})
                low, high = scored.get("pooled_ci95") or (None, None)
                paper = None if row.missing else row.system.paper.get(metric)
                statistics = [scored.get(name) for name in names]
                gain = row.gain.cells() if row.gain and metric == self.metrics[0] else [None] * 4
                cells = [row.system.name, row.missing, metric, *statistics, low, high, paper]
                writer.writerow([*cells, *gain])
        return text.getvalue()

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        rows = [
            {
                "system": row.system.name,
                "missing": row.missing,
                "paper_percent": {} if row.missing else dict(row.system.paper),
                "aggregate": row.aggregate,
                "gain": row.gain.as_json() if row.gain else None,
            }
            for row in self.rows
        ]
        return {"path": str(self.path), "title": self.title, "facts": [*self.facts], "rows": rows}


def ablate(
    name: str,
    given: Mapping[str, Any],
    assignments: Sequence[str],
    out: Path,
    say: Callable[[str], None] = lambda line: None,
    **others: Any,
) -> Ablation:
    """Train all systems of an ablation, and write ``table.md`` and ``table.csv`` into ``out``.

    Each system is a run below ``out``; a finished run is not trained again. The table is written
    each time a system is finished.

    Args:
        name: the name of an ablation of mser, or the path of a TOML file with the same keys.
        given: values that replace those of the presets, by the keys of a preset.
        assignments: ``key=value`` texts for all systems.
        out: the folder.
        say: called with a text for each finished system.
        others: see :func:`settings_of`.

    Raises:
        UsageError: the ablation does not exist, or a key or value is invalid.
        NotFoundError: the cache does not hold the features of an encoder that a system names.
        CacheError, PipelineError: see :func:`train_head`.
    """
    content = checked(AblationKeys, read(name, "ablations"), name)
    systems = _systems(name, content, given, assignments, out, others)
    metrics = _metrics(name, content.get("metrics", ["wa", "ua"]), systems)
    percent = all(_metric(metric).percent for metric in metrics)
    settings, folder = systems[0].settings, LocalFolder(out)
    facts = _facts(content, settings, assignments, percent)
    name_of = {system.settings.out: system.name for system in systems}
    finished: dict[str, Run] = {}
    gains: dict[str, GainOverBest | None] = {}

    def gain_of(system: System) -> GainOverBest | None:
        ready = {system.name, *system.against} <= set(finished)
        if ready and system.against and system.name not in gains:
            others = {name: finished[name] for name in system.against}
            gains[system.name] = gain_over_best(finished[system.name], others, metrics[0])
        return gains.get(system.name)

    def write_table() -> Ablation:
        rows = []
        for system in systems:
            run = finished.get(system.name)
            scored = run.metrics["aggregate"] if run else None
            rows.append(SystemScores(system, None, scored, gain_of(system)))
            for missing in content.get("missing", []):
                rows.append(SystemScores(system, missing, _without(run, missing, system.settings)))
        notes = next((run.notes for run in finished.values()), ())
        table = Ablation(out / "table.md", content["title"], [*facts, *notes], metrics, rows)
        folder.write("table.csv", table.csv().encode())
        folder.write("table.md", table.markdown().encode())
        return table

    def on_finished(run: Run) -> None:
        name = name_of[run.path]
        finished[name] = run
        write_table()
        say(f"{name}: {run}")

    folder.make()
    train_heads([system.settings for system in systems], on_finished)
    return write_table()


def _systems(
    name: str,
    content: AblationKeys,
    given: Mapping[str, Any],
    assignments: Sequence[str],
    out: Path,
    others: Mapping[str, Any],
) -> list[System]:
    systems = []
    for number, values in enumerate(content["systems"], 1):
        row = checked(SystemKeys, values, f"{name}, system {number}")
        choices = {key: value for key, value in row.items() if key in CHOICES}
        settings = preset(row.get("preset", content["preset"]))
        settings |= {"seeds": content["seeds"]} if "seeds" in content else {}
        if row.get("head") not in (None, settings.get("head")):
            # The preset's options are for its own head.
            settings = {
                key: value for key, value in settings.items() if not key.startswith("head.")
            }
        more = {key: value for key, value in given.items() if key not in row}
        settings = combined({**settings, **choices}, more)
        settings |= {**content.get("set", {}), **row.get("set", {})}
        slug = re.sub("[^a-z0-9]+", "-", row["name"].lower()).strip("-")
        named = row.get("encoders", {})
        fields = {**others, "encoders": {**others["encoders"], **named}}
        chosen = settings_of(settings, out=out / slug, **fields).with_overrides(assignments)
        _require_encoders(f"{name}, system '{row['name']}'", chosen, named)
        against = tuple(row.get("against", ()))
        systems.append(System(row["name"], chosen, row.get("paper", {}), against))
    if not systems:
        raise UsageError(f"{name} has no systems: give each as [[systems]] with a name")
    if len({system.settings.out for system in systems}) < len(systems):
        raise UsageError(f"{name}: two systems have the same name: give each its own")
    for system in systems:
        known = [other.name for other in systems if other is not system]
        for other in system.against:
            if other not in known:
                raise unknown(f"system in against of '{system.name}'", other, known)
    return systems


def _require_encoders(where: str, settings: TrainSettings, named: Mapping[str, str]) -> None:
    """Raise an error unless a system has the modalities of ``named``, and the cache its encoders.

    Raises:
        UsageError: the system does not have a modality for which it names an encoder.
        NotFoundError: the cache does not hold the features of an encoder.
    """
    for modality, encoder in named.items():
        if modality not in settings.encoders:
            raise UsageError(
                f"{where}: encoders names an encoder of {modality}, and the system has only "
                f"{modality_names(settings.encoders, 'and')}: add {modality} to its modalities"
            )
        try:
            FeatureCache(settings.cache).open(settings.dataset, encoder, modality=modality)
        except NotFoundError as error:
            raise NotFoundError(f"{where}: {error}") from error


def _without(run: Run | None, missing: str, settings: TrainSettings) -> Mapping[str, Any] | None:
    if run is None or missing not in settings.encoders or len(settings.encoders) == 1:
        return None
    file = f"without-{missing}.json"
    if not (run.path / file).exists():
        evaluate(run.path, [missing], str(settings.cache), settings.device)
    return dict(RunFolder(run.path).read_json(file)["aggregate"])


def _metrics(name: str, wanted: Sequence[str], systems: Sequence[System]) -> list[str]:
    """Return those of the wanted metrics that all systems have, or two others that they have.

    Raises:
        UsageError: the systems have no metric in common.
    """
    of_systems = [scorer_of(Targets(s.settings.target, ())).metrics for s in systems]
    common = [metric for metric in of_systems[0] if all(metric in of for of in of_systems)]
    if not common:
        raise UsageError(f"{name}: its systems have no metric in common: give all the same target")
    return [metric for metric in wanted if metric in common] or common[:2]


def _facts(
    content: AblationKeys, settings: TrainSettings, assignments: Sequence[str], percent: bool
) -> list[str]:
    device = chosen_device(settings.device)
    machine = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} thread(s) of torch"
    )
    seeds = ", ".join(map(str, settings.seeds))
    changed = f"; changed: {', '.join(assignments)}" if assignments else ""
    paper = [f"Paper: {content['source']}."] if "source" in content else []
    note = [content["note"]] if "note" in content else []
    return [
        *paper,
        *note,
        f"Ours: {settings.dataset}, mean ± std {'in % ' if percent else ''}over folds and seeds "
        f"({seeds}); frozen encoders{changed}.",
        f"{datetime.now(UTC).date()}, mser {version('mser')}, torch {torch.__version__}, "
        f"{machine}.",
    ]


def _cell(aggregate: Mapping[str, Any] | None, metric: str) -> str:
    if aggregate is None:
        return "–"
    mean, std = aggregate[metric]["mean"], aggregate[metric]["std"]
    factor, digits = scale(_metric(metric))
    return f"{factor * mean:.{digits}f}" + ("" if std is None else f" ± {factor * std:.{digits}f}")


def scale(metric: Metric) -> tuple[int, int]:
    """Return by what the scores of a metric are multiplied in a table, and their decimals."""
    return (100, 2) if metric.percent else (1, 3)


def _metric(name: str) -> Metric:
    return metric_named(name) or METRICS["wa"]
