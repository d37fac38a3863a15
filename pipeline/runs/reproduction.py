"""Reproductions: from a corpus on the disk to a published table, with all that differs from it.

A table is an ablation (see :mod:`.ablation`) with a table ``[reproduction]``, which says what is
extracted, and in what the protocol differs from the published one.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Required

from typing_extensions import TypedDict

from ...cache import NotFoundError
from ...cache.storage.local import LocalFolder
from ..corpora import load_corpus
from ..errors import UsageError, unknown
from ..evaluation.registry import Metric
from ..evaluation.scorers import metric_named
from ..extract import ExtractSettings, Summary, extract
from ..feature_cache import FeatureCache
from ..modalities import MODALITIES
from ..preset_files import preset_names
from ..train.presets import read
from ..train.run_folder import RunFolder
from ..validation import checked, file_table, one_of
from .ablation import Ablation, AblationKeys, SystemScores, ablate, scale
from .report import report

_ABLATIONS = "ablations"
Say = Callable[[str], None]


@file_table
class ReproductionKeys(TypedDict, total=False):
    """The keys of ``[reproduction]`` in the file of an ablation."""

    dataset: Required[str]
    encoders: Required[dict[Annotated[str, one_of("modality", MODALITIES)], str]]
    differences: Required[list[str]]
    layers: str
    frames: str
    utterances: int
    not_read: list[str]


@dataclass(frozen=True)
class Plan:
    """What a reproduction does: the equal commands, the published scores, the differences.

    Scores are in %, and those of metrics that are not percentages, such as CCC, as they are.
    """

    title: str
    source: str
    steps: Sequence[str]
    published: Mapping[str, Mapping[str, float]]
    differences: Sequence[str]
    not_read: Sequence[str]

    def __str__(self) -> str:
        """Return the plan as text."""
        lines = [self.title, f"published in: {self.source}"]
        for system, scores in self.published.items():
            lines.append(f"  {system}: {', '.join(_published(scores)) or 'no number'}")
        lines += ["steps:", *(f"  {n}. {step}" for n, step in enumerate(self.steps, 1))]
        lines += ["differences from the published protocol:"]
        lines += [f"  - {difference}" for difference in self.differences]
        if self.not_read:
            lines += ["not read in the source:", *(f"  - {text}" for text in self.not_read)]
        return "\n".join([*lines, "this was a dry run: nothing was written"])

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "title": self.title,
            "source": self.source,
            "steps": [*self.steps],
            "published_percent": {name: dict(scores) for name, scores in self.published.items()},
            "differences": [*self.differences],
            "not_read": [*self.not_read],
        }


@dataclass(frozen=True)
class Reproduction:
    """A published table beside ours; ``path`` is the table in Markdown."""

    path: Path
    report: Path
    plan: Plan
    ablation: Ablation
    notes: Sequence[str]

    def __str__(self) -> str:
        """Return the table and the paths."""
        return f"{self.markdown()}\n{self.path}\n{self.report}"

    def markdown(self) -> str:
        """Return the table in Markdown."""
        head = ["system", "metric", "published", "ours", "pooled [95 %]", "ours − published"]
        lines = [f"# {self.plan.title}", "", f"Published in: {self.plan.source}.", ""]
        lines += [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * 4]
        for row, name, metric in self._cells():
            lines.append(
                f"| {' | '.join([row.system.name, metric.title, *_row(row, name, metric)])} |"
            )
        percent = "in %; " if all(metric.percent for *_, metric in self._cells()) else ""
        lines += [
            "",
            f"Ours: mean ± standard deviation over folds and seeds; {percent}*pooled* scores all "
            "folds together, with a bootstrap interval of the test part.",
        ]
        lines += ["", "Differences from the published protocol:", ""]
        lines += [f"- {difference}" for difference in (*self.plan.differences, *self.notes)]
        if self.plan.not_read:
            lines += ["", "Not read in the source:", "", *(f"- {t}" for t in self.plan.not_read)]
        return "\n".join([*lines, ""])

    def csv(self) -> str:
        """Return a line for each system and metric; scores are as in :class:`Plan`."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        names = ("published", "mean", "std", "pooled", "ci95_low", "ci95_high")
        writer.writerow(["system", "metric", *names])
        for row, name, metric in self._cells():
            scored = (row.aggregate or {})[name]
            factor, _ = scale(metric)
            low, high = scored["pooled_ci95"] or (None, None)
            ours = [scored["mean"], scored["std"], scored["pooled"], low, high]
            scaled = [None if value is None else factor * value for value in ours]
            writer.writerow([row.system.name, name, row.system.paper.get(name), *scaled])
        return text.getvalue()

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON values; our scores are in [0, 1]."""
        rows = self.ablation.as_json()["rows"]
        paths = {"path": str(self.path), "report": str(self.report)}
        return {**paths, **self.plan.as_json(), "notes": [*self.notes], "rows": rows}

    def _cells(self) -> list[tuple[SystemScores, str, Metric]]:
        metrics = [(name, metric_named(name)) for name in self.ablation.metrics]
        rows = [row for row in self.ablation.rows if row.missing is None]
        return [(row, name, metric) for row in rows for name, metric in metrics if metric]


def reproduction_names() -> list[str]:
    """Return the names of the tables that can be reproduced."""
    names = preset_names(_ABLATIONS)
    return [name for name in names if "reproduction" in read(name, _ABLATIONS)]


def reproduce(
    table: str,
    root: Path | None,
    out: Path,
    *,
    given: Mapping[str, Any],
    assignments: Sequence[str],
    encoders: Mapping[str, str | None],
    cache: str,
    dry_run: bool = False,
    say: Say = lambda line: None,
    **where: Any,
) -> Reproduction | Plan:
    """Extract, train, evaluate and report for a published table; write ours beside it into ``out``.

    Each step continues after an interruption, and does nothing where it is finished.

    Args:
        table: one of :func:`reproduction_names`, or the path of a TOML file with the same keys.
        root: the folder of the corpus; ``None`` to use the features that are in the cache.
        out: the folder of the runs, ``reproduction.md``, ``.csv`` and ``.json``, and the report.
        given: settings that replace those of the presets, by the keys of a preset.
        assignments: ``key=value`` texts for all systems.
        encoders: modality → an encoder in place of the published one; ``None``: the published one.
        cache: the cache.
        dry_run: only return the plan.
        say: called with a text for each finished step.
        where: ``device``, ``workers``, ``scheduler`` and others that :class:`ExtractSettings` and
            :class:`~mser.TrainSettings` share.

    Raises:
        UsageError: the table does not exist, the corpus is not there, or a value is invalid.
        CacheError, PipelineError: see :func:`~mser.pipeline.extract.extract` and :func:`.ablate`.
    """
    if not table.endswith(".toml") and table not in reproduction_names():
        raise unknown("table (a file of your own ends in .toml)", table, reproduction_names())
    content = checked(AblationKeys, read(table, _ABLATIONS), table)
    if "reproduction" not in content:
        raise UsageError(f"{table} has no table [reproduction]: run mser ablate --preset {table}")
    keys = checked(ReproductionKeys, content["reproduction"], f"{table}, [reproduction]")
    if extra := [m for m, name in encoders.items() if name and m not in keys["encoders"]]:
        raise UsageError(f"{table} reads no {extra[0]}: leave out --{extra[0]}-encoder")
    chosen = {name: encoders.get(name) or own for name, own in keys["encoders"].items()}
    wanted = _extraction(keys, root, cache, chosen, where)
    changes = _changes(keys, chosen, given, assignments)
    plan = _plan(table, content, keys, wanted, out, changes)
    if dry_run:
        if root is not None:
            load_corpus(keys["dataset"], root)
        return plan
    if wanted is None:
        entries, notes = _cached(keys, chosen, cache, table), []
    else:
        summary = extract(wanted)
        say(str(summary))
        entries = {part.modality: part.entry.rpartition("-")[2] for part in summary.modalities}
        notes = list(_shortfalls(summary))
    more = {"cache": cache, "encoders": entries, **where}
    ablation = ablate(table, given, assignments, out, say, **more)
    runs = [row.system.settings.out for row in ablation.rows if row.missing is None]
    page = report([run for run in runs if run], out / "report.html", tables=out / "tables")
    notes += _counts(keys, ablation)
    done = Reproduction(out / "reproduction.md", page.path, plan, ablation, notes)
    folder = LocalFolder(out)
    folder.write("reproduction.csv", done.csv().encode())
    folder.write("reproduction.json", json.dumps(done.as_json(), indent=2).encode())
    folder.write(done.path.name, done.markdown().encode())
    return done


def _extraction(
    keys: ReproductionKeys,
    root: Path | None,
    cache: str,
    encoders: Mapping[str, str],
    where: Mapping[str, Any],
) -> ExtractSettings | None:
    if root is None:
        return None
    return ExtractSettings(
        dataset=keys["dataset"],
        root=root,
        cache=cache,
        encoders=dict(encoders),
        layers=keys.get("layers", "all"),
        stored_frames=keys.get("frames", "all"),
        **where,
    )


def _cached(
    keys: ReproductionKeys, encoders: Mapping[str, str], cache: str, table: str
) -> dict[str, str]:
    """Return the key of the entry of each modality.

    Raises:
        UsageError: the cache does not hold the features.
    """
    dataset = keys["dataset"]
    try:
        opened = FeatureCache(cache)
        return {m: opened.open(dataset, name, modality=m).spec.key for m, name in encoders.items()}
    except NotFoundError as error:
        raise UsageError(
            f"{table} needs the corpus {dataset}, and {cache} does not hold its features by "
            f"{' and '.join(encoders.values())}: give the folder of {dataset} in --root"
        ) from error


def _plan(
    table: str,
    content: AblationKeys,
    keys: ReproductionKeys,
    wanted: ExtractSettings | None,
    out: Path,
    changes: Sequence[str],
) -> Plan:
    steps = [f"use the features of {keys['dataset']} in the cache"]
    if wanted is not None:
        options = {
            "--dataset": wanted.dataset,
            "--root": wanted.root,
            "--modalities": ",".join(wanted.encoders),
            **{f"--{name}-encoder": encoder for name, encoder in wanted.encoders.items()},
            "--layers": wanted.layers,
            "--frames": wanted.stored_frames,
        }
        steps = [f"mser extract {' '.join(f'{key} {value}' for key, value in options.items())}"]
    systems = content["systems"]
    steps.append(
        f"mser ablate --preset {table} --out {out}: {len(systems)} "
        f"system{'' if len(systems) == 1 else 's'}, each trained and scored on every test part"
    )
    steps.append(f"mser report, and the table: {out / 'report.html'}, {out / 'reproduction.md'}")
    note = [content["note"]] if "note" in content else []
    changed = [f"Changed for this run: {'; '.join(changes)}."] if changes else []
    return Plan(
        content["title"],
        content.get("source", "no source given"),
        steps,
        {str(system["name"]): system.get("paper", {}) for system in systems},
        [*note, *keys["differences"], *changed],
        keys.get("not_read", []),
    )


def _changes(
    keys: ReproductionKeys,
    encoders: Mapping[str, str],
    given: Mapping[str, Any],
    assignments: Sequence[str],
) -> list[str]:
    others = [
        f"the {name} encoder is {encoder}, not {keys['encoders'][name]}"
        for name, encoder in encoders.items()
        if encoder != keys["encoders"][name]
    ]
    seeds = [f"seeds {', '.join(map(str, given['seeds']))}"] if "seeds" in given else []
    return [*others, *seeds, *assignments]


def _shortfalls(summary: Summary) -> list[str]:
    """Return a sentence for each modality of which utterances could not be extracted."""
    return [
        f"{len(part.quarantined)} utterances have no features of {part.modality}, such as "
        f"{part.quarantined[0].id}: {part.quarantined[0].reason}."
        for part in summary.modalities
        if part.quarantined
    ]


def _counts(keys: ReproductionKeys, ablation: Ablation) -> list[str]:
    """Return a sentence for each number of test utterances that is not the published one."""
    published = keys.get("utterances")
    sentences = []
    for row in ablation.rows:
        run = row.system.settings.out
        if row.missing is None and run is not None and published is not None:
            tested = RunFolder(run).read_json("metrics.json")["test_utterances"]
            if tested != published:
                name = row.system.name
                sentences.append(f"{name}: {tested} test utterances, not {published}.")
    return sentences


def _row(row: SystemScores, name: str, metric: Metric) -> list[str]:
    """Return the published score, ours, the pooled one with its interval, and the difference."""
    published, scored = row.system.paper.get(name), (row.aggregate or {})[name]
    factor, digits = scale(metric)

    def text(value: float) -> str:
        return f"{factor * value:.{digits}f}"

    ours = text(scored["mean"]) + ("" if scored["std"] is None else f" ± {text(scored['std'])}")
    pooled = text(scored["pooled"])
    if scored["pooled_ci95"]:
        pooled += f" [{', '.join(map(text, scored['pooled_ci95']))}]"
    if published is None:
        return ["–", ours, pooled, "–"]
    difference = factor * scored["mean"] - published
    return [f"{published:.{digits}f}", ours, pooled, f"{difference:+.{digits}f}"]


def _published(scores: Mapping[str, float]) -> list[str]:
    named = {name: metric for name in scores if (metric := metric_named(name))}
    return [
        f"{metric.title} {scores[name]:.{scale(metric)[1]}f}{' %' if metric.percent else ''}"
        for name, metric in named.items()
    ]
