"""What the report shows of one run beyond its scores: groups, calibration, mistakes and layers."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from sklearn.metrics import accuracy_score, f1_score, recall_score

from ...cache import CacheError
from ..errors import PipelineError
from ..evaluation.calibration import calibration
from ..evaluation.predictions import read_predictions
from ..feature_cache import FeatureCache
from ..figures.points import attribute_figure, drawn_points
from ..figures.scores import reliability_figure
from ..figures.training import weights_figure
from ..train.run import targets_in
from ..train.run_folder import RunFolder, cache_of_run
from .report_rows import CorpusRows, TestRow, read_corpus, read_rows, values_of

_GROUPS = 40  # rows of a table; the largest groups
_MISTAKES = 12
_MIX = re.compile(r"(?:^|\.)mixes\.([^.]+)\.weights")


def run_details(
    run: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    by: str | None = None,
    audio: bool = False,
) -> dict[str, Any]:
    """Return the further content of the page about one run, by the names of the template.

    Args:
        run: the run folder.
        config: the content of ``config.toml``.
        metrics: the content of ``metrics.json``.
        by: a column of the corpus, such as ``scenario``, whose values are scored by themselves.
        audio: put the clips of the surest mistakes into the page.

    Raises:
        UsageError: the corpus does not have the column.
        PipelineError: ``predictions.csv`` is damaged.
    """
    rows = read_rows(run, metrics["classes"])
    corpus = read_corpus(run, config)
    scored = {}
    for column in dict.fromkeys(["session", "speaker", *([by] if by else [])]):
        table = _scores_by(rows, values_of(rows, column, corpus)) if rows else []
        if len(table) > 1 or (column == by and table):
            scored[column] = table
    confidences = [row.probabilities[row.predicted] for row in rows]
    right = [row.label == row.predicted for row in rows]
    calibrated = calibration(confidences, right) if rows else None
    layers = layer_weights(run, config, metrics)
    mistakes = _mistakes(rows, corpus, audio)
    return {
        "by": {name: table[:_GROUPS] for name, table in scored.items()},
        "left": {name: max(0, len(table) - _GROUPS) for name, table in scored.items()},
        "calibration": calibrated,
        "calibration_figure": reliability_figure(calibrated.bins) if calibrated else None,
        "attributes": _attributes(run, metrics),
        "mistakes": mistakes,
        "with_text": any(row["text"] for row in mistakes),
        "has_corpus": corpus is not None,
        "with_audio": audio,
        "layer_figures": {name: weights_figure(name, rows) for name, rows in layers.items()},
    }


def _attributes(run: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a figure for each attribute: predictions against the truth, and the CCC by fold."""
    names = targets_in(metrics).attributes
    if not names:
        return []
    parts = read_predictions(run).parts
    first = -len(names)
    found = []
    for number, name in enumerate(names):
        true, predicted = (
            [float(values[first + number]) for part in parts for values in getattr(part, column)]
            for column in ("labels", "predicted")
        )
        key = "ccc" if len(names) == 1 else f"ccc_{name}"
        of_fold: dict[str, list[float]] = defaultdict(list)
        for fold in metrics["folds"]:
            of_fold[fold["fold"]].append(fold[key])
        means = {fold: fmean(scores) for fold, scores in of_fold.items()}
        chosen = drawn_points(true, predicted)
        figure = attribute_figure(name, chosen, means)
        shown = {"name": name, "figure": figure, "count": len(true), "shown": len(chosen)}
        found.append(shown)
    return found


def layer_weights(
    run: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return the learned mix of layers of each modality: mean, least and largest weight.

    The weights are softmax(w) of each checkpoint, over all folds and seeds; see
    :class:`~mser.heads.modules.layer_mix.LayerMix`. A head that mixes no layers has none.
    """
    folder = RunFolder(run)
    found: dict[str, list[Any]] = defaultdict(list)
    for fold in metrics["folds"]:
        try:
            with safe_open(folder.checkpoint(fold["fold"], fold["seed"]), "np") as file:
                for key in file.keys():  # noqa: SIM118 -- not a mapping
                    if match := _MIX.search(key):
                        raw = file.get_tensor(key).astype(float)
                        powers = np.exp(raw - raw.max())
                        found[match[1]].append(powers / powers.sum())
        except (OSError, SafetensorError):
            continue  # a report needs no checkpoints
    tables = {}
    for modality, weights in found.items():
        if len({len(each) for each in weights}) == 1:
            names = _layer_names(run, config, modality, len(weights[0]))
            columns = zip(names, np.stack(weights).T, strict=True)
            tables[modality] = [
                {"layer": name, "mean": fmean(w), "low": min(w), "high": max(w)}
                for name, w in ((name, values.tolist()) for name, values in columns)
            ]
    return tables


def _layer_names(run: Path, config: Mapping[str, Any], modality: str, count: int) -> list[str]:
    """Return the encoder's numbers of the mixed layers; their positions if these are unknown."""
    positions = [f"no. {position + 1}" for position in range(count)]
    try:
        features = FeatureCache(cache_of_run(run, config))
        key = str(config["encoders"][modality]["key"])
        stored = features.open(config["dataset"], key, modality=modality).spec.layers
    except (CacheError, PipelineError, OSError, KeyError, TypeError):
        return positions
    return [str(layer) for layer in stored] if len(stored) == count else positions


def _scores_by(rows: Sequence[TestRow], values: Sequence[str | None]) -> list[dict[str, Any]]:
    """Return the scores of each value, the value with the most predictions first."""
    groups: dict[str, list[TestRow]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            groups[value].append(row)
    table = []
    for value, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        labels, predicted = ([getattr(m, n) for m in members] for n in ("label", "predicted"))
        present = sorted(set(labels))
        table.append(
            {
                "value": value,
                "utterances": len({member.id for member in members}),
                "wa": accuracy_score(labels, predicted),
                "ua": recall_score(
                    labels, predicted, labels=present, average="macro", zero_division=0
                ),
                "f1": f1_score(labels, predicted, average="weighted", zero_division=0),
            }
        )
    return table


def _mistakes(
    rows: Sequence[TestRow], corpus: CorpusRows | None, audio: bool
) -> list[dict[str, Any]]:
    """Return the wrong predictions of the highest mean probability over the trainings."""
    of_id: dict[str, list[TestRow]] = defaultdict(list)
    for row in rows:
        of_id[row.id].append(row)
    wrong = []
    for id, predictions in of_id.items():
        label, names = predictions[0].label, predictions[0].probabilities
        mean = {name: fmean(p.probabilities[name] for p in predictions) for name in names}
        best = max(mean, key=mean.__getitem__)
        if best != label:
            wrong.append((mean[best], id, label, best, mean[label]))
    wrong.sort(key=lambda found: (-found[0], found[1]))
    mistakes = []
    for probability, id, label, predicted, of_label in wrong[:_MISTAKES]:
        clip, why = corpus.clip(id) if audio and corpus else (None, "")
        mistakes.append(
            {
                "id": id,
                "label": label,
                "predicted": predicted,
                "probability": probability,
                "of_label": of_label,
                "text": corpus.text(id) if corpus else "",
                "clip": clip,
                "why": why,
            }
        )
    return mistakes
