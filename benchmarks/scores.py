"""How well heads do, and which settings were chosen as defaults, on corpora with real features.

``benchmarks/score_data.py`` makes the cache. Every training is a run folder below ``--runs``: an
interrupted script continues, and ``mser report`` shows the runs.

* ``settings``: the default settings against one change at a time, on the first folds of each
  corpus. Only the scores of the **validation** part are read: at the epoch that the training keeps,
  and, in brackets, the mean of the last five epochs, which no choice has raised.
* ``heads``: every head against `linear`, which is early concatenation with logistic regression, on
  the test parts of all folds, with the seeds of ``--seeds``; the difference with its 95 % interval.

Run it with ``OMP_NUM_THREADS=1 python benchmarks/scores.py --cache DIR --only settings``.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from mser.benchmarks.results import Results, Rows, Table, Value, machine, versions
from mser.pipeline.evaluation.compare import compare, with_interval
from mser.pipeline.evaluation.registry import METRICS
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.run import Run

SETTINGS, HEADS = "settings", "heads"


@dataclass(frozen=True)
class ScoredCorpus:
    """A corpus of the cache, and how heads are scored on it."""

    modalities: Sequence[str]
    protocol: str
    monitor: str
    """The metric that chooses the epoch, and that the tables show."""
    heads: Sequence[str]
    """The heads of the section ``heads``."""
    searched: Sequence[str]
    """The heads of the search of settings."""
    folds: Sequence[str] = ()
    """The folds of the search of settings; empty for all."""
    groups: str = "utterance"
    """What the bootstrap of the intervals draws."""
    dataset: str = ""
    """The corpus of the cache, if it has another name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all heads."""


FUSION = ("bottleneck", "distribution", "token", "instance", "mgcma", "hbf", "query")
CORPORA = {
    "emodb": ScoredCorpus(
        modalities=("speech",),
        protocol="leave-one-speaker-out",
        monitor="ua",
        heads=("bottleneck", "token", "hbf", "query"),
        searched=("query", "token"),
        folds=("03", "08", "14"),
    ),
    "meld": ScoredCorpus(
        modalities=("text",),
        protocol="official",
        monitor="weighted_f1",
        heads=("bottleneck", "token", "hbf", "query", "hbaf"),
        searched=("hbf", "query", "hbaf"),
        groups="dialogue",
    ),
    "paired": ScoredCorpus(
        modalities=("speech", "text"),
        protocol="leave-one-speaker-out",
        monitor="ua",
        heads=FUSION,
        searched=("query", "token"),
        folds=("03", "14"),
        groups="speaker",
    ),
    "synthetic": ScoredCorpus(
        modalities=("speech", "text"),
        protocol="speaker-folds",
        monitor="ua",
        heads=(*FUSION, "hbaf"),
        searched=("hbf", "query", "token"),
        folds=("fold1",),
    ),
}
BY_SPEAKER = {
    f"{name}-by-speaker": replace(
        CORPORA[name], dataset=name, settings={"speaker_normalisation": ("speech",)}
    )
    for name in ("emodb", "paired")
}
SCORED = CORPORA | BY_SPEAKER
# Small forms, which a CPU trains in minutes.
SMALL = {
    head: {"head.width": 64, **options}
    for head, options in {
        "bottleneck": {},
        "distribution": {"head.n_attention_heads": 4},
        "token": {"head.n_attention_heads": 4, "head.n_blocks": 2},
        "instance": {"head.n_attention_heads": 4},
        "mgcma": {"head.n_attention_heads": 4, "head.n_blocks": 2},
        "hbf": {},
        "hbaf": {},
        "query": {},
    }.items()
}
CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learning_rate=1e-4": {"learning_rate": 1e-4},
    "learning_rate=3e-4": {"learning_rate": 3e-4},
    "learning_rate=3e-3": {"learning_rate": 3e-3},
    "schedule=cosine warmup=0.1 epochs=30": {"schedule": "cosine", "warmup": 0.1, "epochs": 30},
    "clip=1": {"clip": 1.0},
    "ema=0": {"ema": 0.0},
    "ema=0.999": {"ema": 0.999},
    "weight_decay=0.1": {"weight_decay": 0.1},
    "class_weights=balanced": {"class_weights": "balanced"},
    "monitor=loss": {"monitor": "loss"},
    "patience=5": {"patience": 5},
    "head.dropout=0.3": {"head.dropout": 0.3},
    "head.dropout=0.5": {"head.dropout": 0.5},
    "layer=concat": {"layer": "concat"},
}


def trained(
    cache: Path,
    runs: Path,
    name: str,
    head: str,
    changes: Mapping[str, Any],
    folds: Sequence[str],
    seeds: Sequence[int],
) -> Run:
    """Train a head on a corpus, or read the run that a former call made."""
    corpus = SCORED[name]
    changes = dict(changes)
    settings = TrainSettings(
        head=head,
        dataset=corpus.dataset or name,
        cache=cache,
        encoders=dict.fromkeys(corpus.modalities),
        layer=changes.pop("layer", None),
        runs=runs,
        protocol=corpus.protocol,
        monitor=corpus.monitor,
        folds=tuple(folds),
        seeds=tuple(seeds),
    )
    return train_head(settings.changed({**corpus.settings, **SMALL.get(head, {}), **changes}))


def search(cache: Path, runs: Path, names: Sequence[str], changes: Sequence[str]) -> Table:
    """Return the validation scores in % of each change, for each corpus and head."""
    rows: Rows = {}
    for change in changes:
        row: dict[str, Value] = {}
        for name in names:
            corpus = SCORED[name]
            for head in corpus.searched:
                if head == "hbf" and change.startswith("layer="):
                    row[f"{name}, {head}"] = "–"
                    continue
                run = trained(cache, runs, name, head, CHANGES[change], corpus.folds, (0,))
                scores = [fold["validation"][corpus.monitor] for fold in run.metrics["folds"]]
                late = late_scores(run, corpus.monitor)
                row[f"{name}, {head}"] = f"{100 * fmean(scores):.1f} ({100 * fmean(late):.1f})"
        rows[change] = row
        print(change, row, flush=True)
    return Table("validation score of one changed setting (late epochs), in %", rows)


def late_scores(run: Run, metric: str) -> list[float]:
    """Return the mean validation score of the last five epochs of each training."""
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    for line in (run.path / "log.jsonl").read_text("utf-8").splitlines():
        epoch = json.loads(line)
        scores[epoch["fold"], epoch["seed"]].append(epoch["validation"][metric])
    return [fmean(training[-5:]) for training in scores.values()]


def against_linear(cache: Path, runs: Path, name: str, seeds: Sequence[int]) -> Table:
    """Return the test scores of each head, and their difference to ``linear``, in %."""
    corpus = SCORED[name]
    rows: Rows = {}
    baseline = trained(cache, runs, name, "linear", {}, (), (0,))
    for head in ("linear", *corpus.heads):
        run = baseline if head == "linear" else trained(cache, runs, name, head, {}, (), seeds)
        aggregate = run.metrics["aggregate"]
        row: dict[str, Value] = {
            metric: f"{100 * aggregate[metric]['pooled']:.1f}" for metric in ("ua", "weighted_f1")
        }
        row["difference to linear [95 %]"] = ""
        if head != "linear":
            difference = compare(baseline.path, run.path, groups=corpus.groups).metrics[
                corpus.monitor
            ]
            row["difference to linear [95 %]"] = with_interval(
                METRICS[corpus.monitor], difference.difference, difference.difference_ci95, "+"
            )
        rows[head] = row
        print(name, head, row, flush=True)
    return Table(f"{name}: pooled test scores, {corpus.protocol}", rows)


def main() -> None:
    """Train, print the tables and write their JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="made by score_data.py")
    parser.add_argument("--only", choices=(SETTINGS, HEADS), required=True, help="the section")
    parser.add_argument("--datasets", default=",".join(CORPORA), help=f"of {', '.join(SCORED)}")
    parser.add_argument("--changes", default=";".join(CHANGES), help="default: all")
    parser.add_argument("--seeds", default="0,1,2", help="of the section heads; default 0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="where the JSON goes")
    given = parser.parse_args()
    names, before = given.datasets.split(","), machine(torch.device("cpu"))
    if given.only == SETTINGS:
        tables = [search(given.cache, given.runs, names, given.changes.split(";"))]
    else:
        seeds = [*map(int, given.seeds.split(","))]
        tables = [against_linear(given.cache, given.runs, name, seeds) for name in names]
    results = Results(
        f"scores-{given.only}",
        f"python benchmarks/scores.py --cache DIR --only {given.only}",
        small=False,
        date=str(datetime.now(UTC).date()),
        machine=before,
        versions=versions(["mser", "torch", "scikit-learn", "numpy"]),
        settings={"corpora": given.datasets, "seeds of the heads": given.seeds},
        tables=tables,
    )
    print(results.markdown())
    print(f"\n{results.save(given.out)}")


if __name__ == "__main__":
    main()
