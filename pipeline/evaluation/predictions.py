"""Reading the ``predictions.csv`` of a run folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..corpora.tables import read_table
from ..errors import PipelineError, UsageError
from .metrics import Predictions

NAME = "predictions.csv"
_BEFORE, _AFTER = ("id", "label", "predicted"), ("fold", "seed")


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of a run for its test utterances, one part per fold and seed."""

    run: Path
    classes: tuple[str, ...]
    parts: tuple[Predictions, ...]


def read_predictions(run: Path) -> RunPredictions:
    """Read the predictions of a run folder.

    Raises:
        UsageError: there is no such folder, or it has no predictions.
        PipelineError: the file does not have the form in which a run writes it.
    """
    path = run / NAME
    if not path.is_file():
        raise UsageError(f"'{run}' contains no {NAME}: give the folder of a finished run")
    classes: tuple[str, ...] = ()
    by_fold: dict[tuple[str, int], list[tuple[str, str, str]]] = {}
    for place, cells in read_table(path):
        classes = classes or _classes(path, cells)
        for column in ("label", "predicted"):
            if cells[column] not in classes:
                raise _damaged(path, f"{place}: '{cells[column]}' is not one of its classes")
        if not cells["seed"].isdecimal():
            raise _damaged(path, f"{place}: the seed '{cells['seed']}' is not a number")
        rows = by_fold.setdefault((cells["fold"], int(cells["seed"])), [])
        rows.append((cells["id"], cells["label"], cells["predicted"]))
    if not by_fold:
        raise _damaged(path, "it contains no utterance")
    parts = []
    for (fold, seed), rows in by_fold.items():
        ids, labels, predicted = zip(*rows, strict=True)
        parts.append(Predictions(fold, seed, labels, predicted, ids))
    return RunPredictions(run, classes, tuple(parts))


def _classes(path: Path, columns: Iterable[str]) -> tuple[str, ...]:
    header = tuple(columns)
    middle = header[len(_BEFORE) : -len(_AFTER)]
    classes = tuple(name.removeprefix("p_") for name in middle)
    if header != (*_BEFORE, *(f"p_{name}" for name in classes), *_AFTER) or not classes:
        raise _damaged(path, "its columns are not id, label, predicted, p_CLASS …, fold and seed")
    return classes


def _damaged(path: Path, why: str) -> PipelineError:
    return PipelineError(f"{path} is damaged ({why}): train again into another folder")
