"""Reading a split file: the names of the utterances in each part of each fold.

``folds.json`` of a run folder (``{"folds": [{"fold": …, "train": [ids], "validation": …, …}]}``).

A table, in one of the kinds of files of :mod:`~mser.pipeline.corpora.tables`, with the columns
``id``, ``fold`` and ``part``; with ``id`` and ``part`` for one fold; or with ``id`` and ``fold``,
as lists for k-fold cross-validation are written: each fold is the test part once, and all other
folds are its training part.

EmoBox (github.com/emo-box/EmoBox): the folder of a corpus below ``data``, with
``fold_1/iemocap_train_fold_1.jsonl``, ``…_test_…`` and for some corpora ``…_valid_…``, in which
``wav`` is the path of a clip; or the folder of one fold.

s3prl (github.com/s3prl/s3prl, downstream/emotion): the folder ``meta_data`` with
``Session1/train_meta_data.json`` and ``test_meta_data.json``, in which ``path`` is the path of a
clip; or the folder of one session. s3prl draws its validation part when it trains, so no file
contains it.

Labels, speakers and lengths in these files are not read: the corpus has them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpora.tables import SUFFIXES, cell_text, read_table, unreadable
from ..errors import PipelineError, UsageError
from .folds import PARTS

Parts = dict[str, list[str]]
"""The names in each part of a fold."""

_FORMS = (
    "give a run's folds.json, a table (.csv, .tsv, .jsonl or .parquet) with the columns id, fold "
    "and part, a folder of EmoBox's fold lists or s3prl's folder meta_data"
)
_COLUMNS = ("id", "fold", "part")
_PART_NAMES = {part: part for part in PARTS} | dict.fromkeys(("valid", "val", "dev"), "validation")
# Names of list files: the part, and the fold's name where it is not the name of the folder.
_LISTS = (
    re.compile(r".+_(?P<part>train|valid|test)_(?P<fold>fold_[0-9]+)\.jsonl?"),
    re.compile(r"(?P<part>train|dev|test)_meta_data\.json"),
)


@dataclass(frozen=True)
class SplitFile:
    """The contents of a split file: the names in each part of each fold, as the file writes them.

    Every fold has names for ``train`` and ``test``; ``validation`` may be missing.
    """

    path: Path
    folds: Mapping[str, Mapping[str, list[str]]]


def read_split_file(path: Path) -> SplitFile:
    """Read a split file, or a folder of list files, in any of the forms above.

    Raises:
        UsageError: there is nothing at ``path``, or it is not a split file by its suffix.
        PipelineError: a file is damaged or does not have the form of its suffix, or a fold lacks a
            part.
    """
    if not path.exists():
        raise UsageError(f"there is no split file '{path}': {_FORMS}")
    if path.is_dir():
        folds = _folder(path)
    elif path.suffix.lower() == ".json":
        folds = _folds_json(path)
    elif path.suffix.lower() in SUFFIXES:
        folds = _table(path)
    else:
        raise UsageError(f"'{path}' is not a split file by its suffix: {_FORMS}")
    for name, parts in folds.items():
        for part in ("train", "test"):
            if not parts.get(part):
                raise PipelineError(f"fold '{name}' of {path} has no {part} part: add one")
    return SplitFile(path, folds)


def _folds_json(path: Path) -> dict[str, Parts]:
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("folds"), list):
        raise _not_a_split_file(path)
    folds: dict[str, Parts] = {}
    for fold in content["folds"]:
        try:
            name = str(fold["fold"])
            parts = {part: _strings(fold[part]) for part in PARTS if part in fold}
        except (KeyError, TypeError) as error:
            raise _not_a_split_file(path) from error
        if name in folds:
            raise PipelineError(f"{path} has two folds '{name}': give each fold its own name")
        folds[name] = parts
    if not folds:
        raise PipelineError(f"{path} contains no fold: {_FORMS}")
    return folds


def _folder(path: Path) -> dict[str, Parts]:
    """Read the list files of a folder and of its subfolders: one file per part of each fold."""
    lists: dict[str, dict[str, Path]] = {}
    for file in sorted([*path.glob("*.json*"), *path.glob("*/*.json*")]):
        match = next(filter(None, (form.fullmatch(file.name) for form in _LISTS)), None)
        if match:
            name = match.groupdict().get("fold") or file.absolute().parent.name
            # EmoBox has each list as .json and as .jsonl with the same contents: the last is used.
            lists.setdefault(name, {})[_PART_NAMES[match["part"]]] = file
    if not lists:
        raise UsageError(f"the folder '{path}' contains no lists of folds: {_FORMS}")
    return {
        name: {part: _clips(file) for part, file in lists[name].items()}
        for name in sorted(lists, key=_by_last_number)
    }


def _clips(path: Path) -> list[str]:
    """Return the paths of the clips in a list file of EmoBox or s3prl."""
    try:
        if path.suffix == ".jsonl":
            return _strings([cells["wav"] for _, cells in read_table(path)])
        content = _json(path)
        if "meta_data" in content:
            return _strings([row["path"] for row in content["meta_data"]])
        return _strings([row["wav"] for row in content.values()])
    except (AttributeError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} does not name its clips by 'wav' (EmoBox) or 'path' (s3prl): take the file "
            "from its repository again"
        ) from error


def _table(path: Path) -> dict[str, Parts]:
    folds: dict[str, Parts] = {}
    columns: list[str] = []
    for place, cells in read_table(path, _COLUMNS, ignore_case=True):
        columns = columns or [column for column in _COLUMNS if column in cells]
        if len(columns) < 2 or "id" not in columns:
            raise _not_a_split_file(path)
        try:
            texts = {column: cell_text(cells, column) or "" for column in columns}
        except ValueError as error:
            raise PipelineError(f"{path}, {place}: {error}") from error
        for column, text in texts.items():
            if not text:
                raise PipelineError(f"{path}, {place}: its {column} is empty: fill it in")
        part = _PART_NAMES.get(texts.get("part", "test").lower())
        if part is None:
            raise PipelineError(
                f"{path}, {place}: its part is '{texts['part']}': write train, validation or test"
            )
        fold = folds.setdefault(texts.get("fold", path.stem), {})
        fold.setdefault(part, []).append(texts["id"])
    if not folds:
        raise PipelineError(f"{path} contains no utterance: give it one row per utterance")
    folds = {name: folds[name] for name in sorted(folds, key=_by_last_number)}
    return folds if "part" in columns else _cross_validation(folds)


def _cross_validation(folds: Mapping[str, Parts]) -> dict[str, Parts]:
    """Give each fold the test parts of all other folds as its training part."""
    return {
        name: {
            "train": [id for other in folds if other != name for id in folds[other]["test"]],
            "test": fold["test"],
        }
        for name, fold in folds.items()
    }


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise unreadable(str(path), "JSON", error, "write the file again") from error


def _not_a_split_file(path: Path) -> PipelineError:
    if any(form.fullmatch(path.name) for form in _LISTS):
        return PipelineError(
            f"{path} is the list of one part: give the folder that contains the lists of all parts"
        )
    return PipelineError(f"{path} does not have the form of a split file: {_FORMS}")


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(value)
    return value


def _by_last_number(name: str) -> tuple[int, str]:
    """Sort 9 before 10; names without a number at their end come first."""
    digits = re.search("[0-9]+$", name)
    return (int(digits[0]) if digits else -1, name)
