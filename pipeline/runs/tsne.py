"""A t-SNE figure of a run: the vectors of each modality before and after the alignment.

After Figure 3 of MGCMA (arXiv 2412.20821). t-SNE (van der Maaten & Hinton, JMLR 2008) is that of
scikit-learn, with PCA at the start and a fixed seed. Each stage is embedded by itself, all its
modalities together, so that distances between modalities can be seen. Positions of different
stages, and large distances, have no meaning.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor

from ...heads import HEADS, Head
from ..corpora import Utterance
from ..errors import PipelineError, UsageError, unknown
from ..figures.points import Point, embedding_figure
from ..figures.style import pdf, svg
from ..output import write_output
from ..protocols.folds import Fold
from ..train.batches import BatchSampler
from ..train.determinism import reproducible
from ..train.jobs import build, examples_of, trainer_of
from ..train.run_folder import RunFolder
from ..train.trainer import Trainer, autocast
from .evaluate import load_weights, settings_of_run

PERPLEXITY = 30.0
"""The perplexity of t-SNE; less for fewer than 91 vectors."""

_FEWEST = 4  # vectors
_COLUMNS = ("stage", "id", "label", "modality", "x", "y")

Stages = dict[str, list[Point]]
"""Stage → a point for each modality of each utterance."""


@dataclass(frozen=True)
class TsneFigure:
    """The figure that was written, and the table of its points."""

    path: Path
    table: Path
    fold: str
    seed: int
    points: int

    def as_json(self) -> dict[str, Any]:
        """Return the paths and the facts as JSON values."""
        return {
            "figure": str(self.path),
            "table": str(self.table),
            "fold": self.fold,
            "seed": self.seed,
            "points": self.points,
        }

    def __str__(self) -> str:
        """Return the paths and the facts."""
        return (
            f"{self.path}: {self.points} vectors of fold {self.fold}, seed {self.seed}; open it in "
            f"a browser\n{self.table}: the positions"
        )


def tsne_figure(
    run: Path,
    out: Path,
    fold: str | None = None,
    seed: int | None = None,
    *,
    cache: Any = None,
    device: str = "auto",
    head: str | None = None,
) -> TsneFigure:
    """Draw the test part of a fold as SVG or PDF, and write the positions as CSV beside the figure.

    The colour of a point is its class, the marker its modality. The same run, on the same machine
    with the same number of threads, gives the same files.

    Args:
        run: the folder of a finished run of a head that implements ``Head.representations``.
        out: the SVG or PDF file to write; the CSV file has the same name.
        fold: the fold; the first by default.
        seed: the seed; the first by default.
        cache: where the features are now, if they have moved.
        device: ``auto``, ``cpu`` or ``cuda``.
        head: see :func:`~mser.pipeline.runs.evaluate.evaluate`.

    Raises:
        UsageError: it is not a finished run, it has no such fold or seed, its head has no vectors
            of single modalities, or ``out`` is not the name of an SVG or PDF file.
        PipelineError: a checkpoint is damaged, or the test part is too small.
        CacheError: the cache does not hold the features.
    """
    if out.suffix not in (".svg", ".pdf") or out.is_dir():
        raise UsageError(
            f"'{out}' is not the name of an SVG or PDF file: give a name such as tsne.svg"
        )
    folder = RunFolder(run)
    config, metrics = folder.config(), folder.read_json("metrics.json")
    settings, _ = settings_of_run(run, config, cache, device, head)
    if settings.head not in _shown():
        raise UsageError(
            f"the head '{config['head']}' of {run} has no vectors of single modalities to show: "
            f"give a run of {', '.join(_shown())}"
        )
    examples = examples_of(settings)
    folds = {each.name: each for each in folder.folds(examples)}
    chosen, number = fold or next(iter(folds)), settings.seeds[0] if seed is None else seed
    if chosen not in folds:
        raise unknown("fold of this run", chosen, folds)
    if number not in settings.seeds:
        raise unknown("seed of this run", str(number), map(str, settings.seeds))
    trainer = trainer_of(settings, examples)
    module = build(settings, examples).to(trainer.device).eval()
    load_weights(module, folder.checkpoint(chosen, number))
    with reproducible():
        stages = {
            stage: _embedded(vectors, folds[chosen])
            for stage, vectors in _vectors(trainer, module, folds[chosen].test).items()
        }
    title = f"{metrics['head']} on {metrics['dataset']}, test part of fold {chosen}, seed {number}"
    table = out.with_suffix(".csv")
    figure = embedding_figure(f"t-SNE: {title}", stages, metrics["classes"], list(module.dims))
    write_output(out, pdf(figure) if out.suffix == ".pdf" else svg(figure))
    write_output(table, _csv(stages))
    return TsneFigure(out, table, chosen, number, len(next(iter(stages.values()))))


def _shown() -> list[str]:
    """Return the names of the heads that implement ``Head.representations``."""
    return [
        name for name, head in HEADS.items() if head.representations is not Head.representations
    ]


def _vectors(
    trainer: Trainer, head: Head, utterances: Sequence[Utterance]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Return stage → modality → id → (D,) float32 on the CPU, without missing modalities."""
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    features = trainer.features(head)
    plan = BatchSampler(utterances, trainer.settings.batch_size, features.examples.length)
    order = plan.order()
    with torch.inference_mode(), autocast(trainer.device, trainer.settings.amp):
        for part, batch in zip(order, features.batches(plan, order), strict=True):
            shown = head.representations(batch.features, batch.lengths)
            for stage, of_stage in shown.items():
                for modality, rows in of_stage.items():
                    kept = found.setdefault(stage, {}).setdefault(modality, {})
                    present = batch.lengths[modality].tolist()
                    for utterance, row, n in zip(part, rows.float().cpu(), present, strict=True):
                        if n:
                            kept[utterance.id] = row
    return found


def _embedded(vectors: Mapping[str, Mapping[str, Tensor]], fold: Fold) -> list[Point]:
    """Return the points of one stage, in the order of the modalities and of the test part."""
    label_of = {utterance.id: str(utterance.label) for utterance in fold.test}
    known = [(m, id, of_id[id]) for m, of_id in vectors.items() for id in label_of if id in of_id]
    if len(known) < _FEWEST:
        raise PipelineError(
            f"the test part of fold '{fold.name}' has only {len(known)} vectors, and t-SNE needs "
            f"{_FEWEST}: choose another fold"
        )
    positions = embed(np.stack([vector.numpy() for *_, vector in known]))
    return [
        Point(id, label_of[id], modality, float(x), float(y))
        for (modality, id, _), (x, y) in zip(known, positions, strict=True)
    ]


def embed(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, 2) positions of (N, D) vectors by t-SNE, N ≥ 4, D ≥ 2."""
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=0)
    positions: NDArray[np.float32] = tsne.fit_transform(vectors)
    return positions


def _csv(stages: Stages) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for stage, points in stages.items():
        writer.writerows((stage, p.id, p.label, p.modality, p.x, p.y) for p in points)
    return text.getvalue()
