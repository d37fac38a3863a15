"""Reading the ``predictions.csv`` of a run folder, which stage two wrote."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PipelineError, UsageError
from .metrics import Predictions

NAME = "predictions.csv"
_BEFORE, _AFTER = ["id", "label", "predicted"], ["fold", "seed"]


@dataclass(frozen=True)
class RunPredictions:
    """What a run says of every test utterance, in one part for each fold and seed."""

    run: Path
    classes: tuple[str, ...]
    parts: tuple[Predictions, ...]


def read_predictions(run: Path) -> RunPredictions:
    """Read the predictions of a run folder.

    Raises:
        UsageError: there is no such folder, or it holds no predictions.
        PipelineError: the file is not as a run writes it.
    """
    path = run / NAME
    if not path.is_file():
        raise UsageError(f"'{run}' holds no {NAME}: give the folder of a finished run")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            classes = _classes(path, next(reader, []))
            found: dict[tuple[str, int], list[tuple[str, str, str]]] = {}
            for part, row in _rows(path, reader, classes):
                found.setdefault(part, []).append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not found:
        raise _damaged(path, "it names no utterance")
    parts = []
    for (fold, seed), rows in found.items():
        ids, labels, predicted = zip(*rows, strict=True)
        parts.append(Predictions(fold, seed, labels, predicted, ids))
    return RunPredictions(run, classes, tuple(parts))


def _classes(path: Path, header: list[str]) -> tuple[str, ...]:
    middle = header[len(_BEFORE) : -len(_AFTER)]
    classes = tuple(name.removeprefix("p_") for name in middle)
    if header != [*_BEFORE, *(f"p_{name}" for name in classes), *_AFTER] or not classes:
        raise _damaged(path, "its columns are not id, label, predicted, p_CLASS ..., fold and seed")
    return classes


def _rows(
    path: Path, reader: Iterator[list[str]], classes: tuple[str, ...]
) -> Iterator[tuple[tuple[str, int], tuple[str, str, str]]]:
    """Yield fold and seed, and id, label and prediction, of each row."""
    width = len(_BEFORE) + len(classes) + len(_AFTER)
    for number, row in enumerate(reader, 2):
        if len(row) != width:
            raise _damaged(path, f"row {number} has {len(row)} of {width} columns")
        id, label, predicted, *_, fold, seed = row
        for name in (label, predicted):
            if name not in classes:
                raise _damaged(path, f"'{name}' in row {number} is none of its classes")
        if not seed.isdecimal():
            raise _damaged(path, f"seed '{seed}' in row {number} is no number")
        yield (fold, int(seed)), (id, label, predicted)


def _damaged(path: Path, why: str) -> PipelineError:
    return PipelineError(f"{path} is not as a run wrote it: {why}; train again into another folder")
