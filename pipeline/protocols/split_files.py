"""A user's split file: which names stand in which part of which fold, in the forms in use.

``folds.json`` of a run folder (``{"folds": [{"fold": …, "train": [ids], "validation": …, …}]}``).

A table as CSV, JSON Lines or Parquet with the columns ``id``, ``fold`` and ``part``; with ``id``
and ``part`` for one fold; or with ``id`` and ``fold``, where fold k is tested by the head that was
trained on the others, as lists for k-fold cross-validation are written.

EmoBox (github.com/emo-box/EmoBox): a corpus's folder below ``data``, with
``fold_1/iemocap_train_fold_1.jsonl``, ``…_test_…`` and for some corpora ``…_valid_…``, in which
``wav`` is the path of a clip; or one fold of it.

s3prl (github.com/s3prl/s3prl, downstream/emotion): ``meta_data`` with
``Session1/train_meta_data.json`` and ``test_meta_data.json``, in which ``path`` is that of a clip;
or one session of it. Its validation part is drawn by s3prl's program and is in no file.

Labels, speakers and lengths in these files are not used: the corpus knows them.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PipelineError, UsageError
from .folds import PARTS

Parts = dict[str, list[str]]
"""The names in each part of a fold."""

_FORMS = (
    "give a run's folds.json, a table (.csv, .jsonl or .parquet) with the columns id, fold and "
    "part, a folder of EmoBox's fold lists or s3prl's folder meta_data"
)
_PART_NAMES = {part: part for part in PARTS} | dict.fromkeys(("valid", "val", "dev"), "validation")
# The fold's name, if it is not that of the folder, and the part.
_LISTS = (
    re.compile(r".+_(?P<part>train|valid|test)_(?P<fold>fold_[0-9]+)\.jsonl?"),
    re.compile(r"(?P<part>train|dev|test)_meta_data\.json"),
)


@dataclass(frozen=True)
class SplitFile:
    """What a split file says: the names in each part of each fold, in the file's own words.

    Every fold has names for ``train`` and ``test``; one without ``validation`` has none of its own.
    """

    path: Path
    folds: Mapping[str, Mapping[str, list[str]]]


def read_split_file(path: Path) -> SplitFile:
    """Read a split file, or a folder of them, of any form that this module names.

    Raises:
        UsageError: there is nothing at ``path``, or nothing of a kind that can be read.
        PipelineError: a file is not of the form that it seems to be, or a fold lacks a part.
    """
    if not path.exists():
        raise UsageError(f"there is no split file '{path}': {_FORMS}")
    if path.is_dir():
        folds = _folder(path)
    elif path.suffix.lower() == ".json":
        folds = _folds_json(path)
    elif path.suffix.lower() in _TABLES:
        folds = _table(path)
    else:
        raise UsageError(f"the split file '{path}' is of no kind that can be read: {_FORMS}")
    for name, parts in folds.items():
        for part in ("train", "test"):
            if not parts.get(part):
                raise PipelineError(f"fold '{name}' of {path} has no {part} part: write one")
    return SplitFile(path, folds)


def _folds_json(path: Path) -> dict[str, Parts]:
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("folds"), list):
        raise _no_form(path)
    folds: dict[str, Parts] = {}
    for fold in content["folds"]:
        try:
            name = str(fold["fold"])
            parts = {part: _names(fold[part]) for part in PARTS if part in fold}
        except (KeyError, TypeError) as error:
            raise _no_form(path) from error
        if name in folds:
            raise PipelineError(f"{path} holds the fold '{name}' twice: name each fold once")
        folds[name] = parts
    if not folds:
        raise PipelineError(f"{path} holds no fold: {_FORMS}")
    return folds


def _folder(path: Path) -> dict[str, Parts]:
    """Read the lists of a folder, or of the folders in it: one for each part of each fold."""
    lists: dict[str, dict[str, Path]] = {}
    for file in sorted([*path.glob("*.json*"), *path.glob("*/*.json*")]):
        found = next(filter(None, (form.fullmatch(file.name) for form in _LISTS)), None)
        if found:
            name = found.groupdict().get("fold") or file.absolute().parent.name
            # EmoBox has each list as .json and, sorted behind it, as .jsonl, which say the same.
            lists.setdefault(name, {})[_PART_NAMES[found["part"]]] = file
    if not lists:
        raise UsageError(f"the folder '{path}' holds no lists of folds: {_FORMS}")
    return {
        name: {part: _clips(file) for part, file in lists[name].items()}
        for name in sorted(lists, key=_numerically)
    }


def _clips(path: Path) -> list[str]:
    """Return the paths of the clips in a list of EmoBox's or s3prl's."""
    try:
        if path.suffix == ".jsonl":
            return _names([one["wav"] for one in _json_lines(path)])
        content = _json(path)
        if "meta_data" in content:
            return _names([one["path"] for one in content["meta_data"]])
        return _names([one["wav"] for one in content.values()])
    except (AttributeError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} does not name its clips as EmoBox's 'wav' or s3prl's 'path' does: take it "
            "from there again"
        ) from error


def _table(path: Path) -> dict[str, Parts]:
    folds: dict[str, Parts] = {}
    columns: list[str] = []
    for number, row in enumerate(_TABLES[path.suffix.lower()](path), 1):
        cells = {str(name).strip().lower(): cell for name, cell in row.items()}
        columns = columns or [name for name in ("id", "fold", "part") if name in cells]
        if len(columns) < 2 or "id" not in columns:
            raise _no_form(path)
        known = {column: _text(cells.get(column)) for column in columns}
        for column, cell in known.items():
            if not cell:
                raise PipelineError(f"{path}, row {number}: its {column} is empty: fill it in")
        part = _PART_NAMES.get(known.get("part", "test").lower())
        if part is None:
            raise PipelineError(
                f"{path}, row {number}: its part is '{known['part']}': write train, validation "
                "or test"
            )
        fold = folds.setdefault(known.get("fold", path.stem), {})
        fold.setdefault(part, []).append(known["id"])
    if not folds:
        raise PipelineError(f"{path} names no utterance: give it a row for each of them")
    folds = {name: folds[name] for name in sorted(folds, key=_numerically)}
    return folds if "part" in columns else _each_tested_once(folds)


def _each_tested_once(folds: Mapping[str, Parts]) -> dict[str, Parts]:
    """Let each fold be tested by what is trained on all the others."""
    return {
        name: {
            "train": [id for other in folds if other != name for id in folds[other]["test"]],
            "test": fold["test"],
        }
        for name, fold in folds.items()
    }


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(file, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise _unreadable(path, "CSV", error) from error


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for line in file:
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise _no_form(path)
                    yield row
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, "JSON Lines", error) from error


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        # On this thread alone: Arrow's own may still be at it when Python ends, and abort it.
        yield from pq.ParquetFile(path, pre_buffer=False).read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error


_TABLES: dict[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", error) from error


def _unreadable(path: Path, kind: str, error: Exception) -> PipelineError:
    reason = " ".join(str(error).split())
    return PipelineError(f"{path} cannot be read as {kind} ({reason}): write it again")


def _no_form(path: Path) -> PipelineError:
    if any(form.fullmatch(path.name) for form in _LISTS):
        return PipelineError(
            f"{path} is the list of one part: give the folder that holds those of all parts"
        )
    return PipelineError(f"{path} has the form of no split file: {_FORMS}")


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(value)
    return value


def _text(cell: Any) -> str:
    """Return a cell as text, empty where nothing is known: pandas writes 1.0 and nan for such."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _numerically(name: str) -> tuple[int, str]:
    digits = re.search("[0-9]+$", name)
    return (int(digits[0]) if digits else -1, name)
