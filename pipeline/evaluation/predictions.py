"""Reading the ``predictions.csv`` of a run folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpora.tables import read_table
from ..errors import PipelineError, UsageError
from ..targets import Targets, Value
from .groups import COLUMNS, Columns, Groups, chosen_groups
from .metrics import Predictions, aggregate, of_fold
from .prediction_columns import targets_of, values_of
from .scorers import scorer_of

NAME = "predictions.csv"
_AFTER = ("fold", "seed")


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of a run for its test utterances, one part per fold and seed.

    ``targets`` is what it predicts. ``columns`` are the columns by which the utterances can be
    grouped; it is empty if an older mser wrote the file.
    """

    run: Path
    targets: Targets
    parts: tuple[Predictions, ...]
    columns: Columns


def read_predictions(run: Path) -> RunPredictions:
    """Read the predictions of a run folder.

    Raises:
        UsageError: there is no such folder, or it has no predictions.
        PipelineError: the file does not have the form in which a run writes it.
    """
    path = run / NAME
    if not path.is_file():
        raise UsageError(f"'{run}' contains no {NAME}: give the folder of a finished run")
    targets: Targets | None = None
    by_fold: dict[tuple[str, int], list[tuple[str, Value, Value]]] = {}
    columns: dict[str, dict[str, str | None]] = {}
    for place, cells in read_table(path):
        targets = targets or _targets(path, cells)
        try:
            label, prediction = values_of(targets, cells)
        except ValueError as error:
            raise _damaged(path, f"{place}: {error}") from None
        if not cells["seed"].isdecimal():
            raise _damaged(path, f"{place}: the seed '{cells['seed']}' is not a number")
        rows = by_fold.setdefault((cells["fold"], int(cells["seed"])), [])
        rows.append((cells["id"], label, prediction))
        for column in COLUMNS:
            if column in cells:
                columns.setdefault(column, {})[cells["id"]] = cells[column] or None
    if targets is None:
        raise _damaged(path, "it contains no utterance")
    parts = []
    for (fold, seed), rows in by_fold.items():
        ids, labels, predicted = zip(*rows, strict=True)
        parts.append(Predictions(fold, seed, labels, predicted, ids))
    return RunPredictions(run, targets, tuple(parts), columns)


def groups_of(runs: Sequence[RunPredictions], by: str | None = None) -> Groups:
    """Group the test utterances of runs on the same utterances; see :func:`chosen_groups`.

    If an older mser wrote all runs, their groups are not known; the default is then utterances.

    Raises:
        UsageError: the utterances cannot be grouped so.
    """
    columns = next((run.columns for run in runs if run.columns), {})
    if not columns and by in COLUMNS:
        raise UsageError(
            f"'{runs[0].run}' does not hold the {by} of its utterances, because an older mser "
            "wrote it: give --groups utterance, or train it again with another --out"
        )
    ids = dict.fromkeys(id for part in runs[0].parts for id in part.ids)
    return chosen_groups(tuple(ids), columns, by)


def regrouped(run: RunPredictions, by: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``metrics.json`` with intervals over other groups.

    A note is added if there are too few groups, also of a single test corpus.

    Raises:
        UsageError: the utterances cannot be grouped so.
    """
    groups = groups_of([run], by)

    def scored(parts: Sequence[Predictions], drawn: Groups) -> dict[str, Any]:
        scores = aggregate(parts, scorer_of(run.targets), groups=drawn.group_of)
        return {"aggregate": scores, "intervals": drawn.as_json()}

    tests, notes = {}, [*metrics["notes"], *groups.notes()]
    for name, of_test in metrics.get("tests", {}).items():
        parts = of_fold(run.parts, name)
        drawn = groups.among(id for part in parts for id in part.ids)
        tests[name] = {**of_test, **scored(parts, drawn)}
        notes += [f"{note} ({name})" for note in drawn.notes()]
    return {
        **metrics,
        **scored(run.parts, groups),
        "notes": notes,
        **({"tests": tests} if tests else {}),
    }


def _targets(path: Path, columns: Iterable[str]) -> Targets:
    names = tuple(columns)
    after = (*_AFTER, *COLUMNS) if names[-len(COLUMNS) :] == COLUMNS else _AFTER
    targets = targets_of(names[1 : -len(after)])
    if targets is None or names[0] != "id" or names[-len(after) :] != after:
        raise _damaged(path, "its columns are not id, those of a target, fold and seed")
    return targets


def _damaged(path: Path, why: str) -> PipelineError:
    return PipelineError(f"{path} is damaged ({why}): train again into another folder")
