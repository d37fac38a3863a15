"""Stage two: from features in the cache to a trained head and its scores."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from ...heads import HEADS, Head, HeadError, build_head
from ..device import chosen_device
from ..errors import UsageError, unknown
from ..metrics import METRICS, Predictions, aggregate, scores
from ..progress import progress
from .examples import Examples, find_examples
from .protocols import Fold, make_folds
from .run_folder import RunFolder
from .settings import TrainSettings
from .trainer import Trained, train


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the content of its ``metrics.json``."""

    path: Path
    metrics: dict[str, Any]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return the scores as a person wants to read them."""
        metrics = self.metrics
        several = len(metrics["folds"]) > 1
        lines = [
            f"{metrics['head']} on {metrics['dataset']}, {metrics['protocol']}: "
            f"{len(metrics['folds'])} x test, {metrics['test_utterances']} utterances, "
            f"{len(metrics['classes'])} classes",
            *(f"  note: {note}" for note in self.notes),
            *(f"  left out: {count} ({why})" for why, count in metrics["excluded"].items()),
            f"  {'':14}{'WA':>14}{'UA':>14}{'weighted F1':>14}{'macro F1':>14}",
        ]
        for name, scored in (
            (metrics["head"], metrics["aggregate"]),
            ("chance", metrics["chance"]),
        ):
            cells = (_cell(scored[metric], several) for metric in METRICS)
            lines.append(f"  {name:14}{''.join(f'{cell:>14}' for cell in cells)}")
        lines.append(
            f"  {'mean ± std over folds and seeds, ' if several else ''}in %; "
            "chance: always the most frequent class of the training part"
        )
        lines.append(f"  {self.path}")
        return "\n".join(lines)


def train_head(settings: TrainSettings) -> Run:
    """Train a head by a protocol on features that lie in the cache, and write the run folder.

    Raises:
        UsageError: the head, an option, the protocol or the device is not there.
        CacheError: the cache does not hold the features.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    if settings.head not in HEADS:
        raise unknown("head", settings.head, HEADS)
    device = chosen_device(settings.device)
    examples = find_examples(settings.cache, settings.dataset, settings.encoders, settings.classes)
    protocol = settings.protocol or examples.corpus.protocol
    folds = make_folds(examples.utterances, protocol)

    def build() -> Head:
        return _build(settings, examples)

    build()  # wrong options are refused before a folder is made
    run = RunFolder(settings)
    run.write_config(settings, protocol, examples)
    run.write_folds(folds, examples.excluded)
    run.write_environment(device)
    trained: list[tuple[Fold, int, Trained]] = []
    most = len(folds) * len(settings.seeds) * settings.epochs
    with _deterministic(), progress(most, f"training {settings.head}", "epoch") as bar:
        for fold in folds:
            for seed in settings.seeds:

                def log(values: dict[str, Any], fold: Fold = fold, seed: int = seed) -> None:
                    run.log(fold, seed, values)
                    bar.update()

                done = train(build, examples, fold, settings, seed, device, log)
                run.write_checkpoint(fold, seed, done)
                trained.append((fold, seed, done))
    metrics = _metrics(settings, protocol, examples, trained)
    run.write_predictions(examples.corpus.classes, trained)
    run.write_metrics(metrics)
    return Run(run.path, metrics, examples.corpus.notes)


def _build(settings: TrainSettings, examples: Examples) -> Head:
    layer = settings.layer
    number = layer is not None and re.fullmatch("-?[0-9]+", layer)
    for name in settings.head_options:
        if name in signature(build_head).parameters:
            raise UsageError(
                f"head.{name} is not an option of a head: the cache and --layer give it"
            )
    try:
        return build_head(
            settings.head,
            {modality: entry.dim for modality, entry in examples.entries.items()},
            len(examples.corpus.classes),
            {modality: entry.n_layers for modality, entry in examples.entries.items()},
            int(layer) if number and layer is not None else layer,
            **settings.head_options,
        )
    except HeadError as error:
        raise UsageError(str(error)) from error


def _metrics(
    settings: TrainSettings,
    protocol: str,
    examples: Examples,
    trained: list[tuple[Fold, int, Trained]],
) -> dict[str, Any]:
    parts, chance, folds = [], [], []
    for fold, seed, one in trained:
        labels = [str(utterance.label) for utterance in fold.test]
        most_frequent = Counter(str(utterance.label) for utterance in fold.train).most_common(1)[0][
            0
        ]
        parts.append(Predictions(fold.name, seed, labels, one.predicted))
        chance.append(Predictions(fold.name, seed, labels, [most_frequent] * len(labels)))
        folds.append(
            {
                "fold": fold.name,
                "seed": seed,
                **scores(labels, one.predicted),
                "utterances": {
                    "train": len(fold.train),
                    "validation": len(fold.validation),
                    "test": len(fold.test),
                },
                "best_epoch": one.best_epoch,
                "validation": one.validation,
            }
        )
    tested = {utterance.id for fold, _, _ in trained for utterance in fold.test}
    return {
        "head": settings.head,
        "dataset": settings.dataset,
        "protocol": protocol,
        "classes": list(examples.corpus.classes),
        "notes": list(examples.corpus.notes),
        "selected_by": f"highest {settings.monitor} on the validation part",
        "test_utterances": len(tested),
        "excluded": dict(Counter(examples.excluded.values())),
        "aggregate": aggregate(parts),
        "chance": aggregate(chance),
        "folds": folds,
    }


def _cell(scored: dict[str, float | None], several: bool) -> str:
    mean, std = scored["mean"], scored["std"]
    if not several or std is None:
        return f"{100 * (mean or 0):.1f}"
    return f"{100 * (mean or 0):.1f} ± {100 * std:.1f}"


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let the same run give the same bits again on the same machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as PyTorch asks for on a GPU
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
