"""Run folders that hold only predictions, and scores that are counted from their definitions."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("angry", "happy", "neutral", "sad")
LABELS = np.array(CLASSES * 60)


def write_run(
    folder: Path,
    seeds: Mapping[int, Any],
    labels: Any = LABELS,
    folds: int = 4,
    dialogues: Sequence[str] | None = None,
) -> Path:
    """Write the predictions of a run as training does; ``seeds`` is seed → predictions.

    Without ``dialogues``, the file has no groups, like those of older runs.
    """
    folder.mkdir()
    groups = [] if dialogues is None else ["speaker", "session", "dialogue"]
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = ["id", "label", "predicted", *(f"p_{c}" for c in CLASSES), "fold", "seed"]
        writer.writerow([*columns, *groups])
        for fold in range(folds):
            for seed, predicted in seeds.items():
                for n in range(fold, len(labels), folds):
                    row = [f"d{n % 7}, u{n}", labels[n], predicted[n]]
                    row += [0.25, 0.25, 0.25, 0.25, f"fold{fold}", seed]
                    writer.writerow([*row, *(["", "one", dialogues[n]] if dialogues else [])])
    return folder


def counted(labels: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """The scores of mser, computed with loops from their definitions."""
    pairs = list(zip(labels, predicted, strict=True))
    correct = sum(label == prediction for label, prediction in pairs)
    recalls, f1, weighted = [], [], 0.0
    for name in sorted({*labels, *predicted}):
        true = sum(label == prediction == name for label, prediction in pairs)
        support = sum(label == name for label in labels)
        predictions = sum(prediction == name for prediction in predicted)
        if support:
            recalls.append(true / support)
        f1.append(2 * true / (support + predictions))
        weighted += support * f1[-1]
    return {
        "wa": correct / len(pairs),
        "ua": sum(recalls) / len(recalls),
        "weighted_f1": weighted / len(pairs),
        "macro_f1": sum(f1) / len(f1),
    }
