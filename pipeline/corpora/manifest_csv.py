"""A corpus that is described by a table: one utterance a row, separated by commas.

    id,audio,text,label,speaker,session,dialogue,turn,split
    Ses01F_impro01_F000,wav/Ses01F_impro01_F000.wav,Excuse me.,neutral,Ses01_F,1,Ses01F_impro01,0,

Only ``id`` is required. A column that is missing and a cell that is empty say that nothing is
known. ``audio`` is relative to the folder of the file; ``split`` is train, validation or test.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import PipelineError, UsageError
from .utterance import Corpus, Utterance

COLUMNS = ("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn", "split")
_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def read_manifest_csv(path: Path, name: str) -> Corpus:
    """Read the corpus ``name`` from a manifest.

    Its classes are the labels that occur, sorted. Its protocol is ``official`` where every
    utterance has a split, and otherwise ``leave-one-session-out``. A note names the columns that
    are not used.

    Raises:
        UsageError: there is no such file.
        PipelineError: the file is no such table, or an id is empty or occurs twice.
    """
    unused: list[str] = []
    try:
        # newline="": the csv module takes any line end, and keeps one that stands in a cell.
        with path.open(encoding="utf-8-sig", newline="") as file:
            utterances = list(_utterances(path, csv.reader(file, strict=True), unused))
    except FileNotFoundError:
        raise UsageError(f"there is no manifest '{path}': give a CSV file") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 ({error}): convert it") from error
    if not utterances:
        raise PipelineError(f"{path} names no utterance: give one a line below the columns' names")
    labels = {one.label for one in utterances if one.label is not None}
    split = all(one.split is not None for one in utterances)
    return Corpus(
        name,
        utterances,
        tuple(sorted(labels)),
        "official" if split else "leave-one-session-out",
        notes=(f"{path.name}: not used: column {', '.join(unused)}",) if unused else (),
    )


def _utterances(path: Path, rows: Any, unused: list[str]) -> Iterator[Utterance]:
    """Read what the csv module's reader gives; ``unused`` is filled with columns' names."""
    line = 0
    lines: dict[str, int] = {}
    columns: list[str] = []
    try:
        for row in rows:
            line = rows.line_num
            if not row:  # an empty line
                continue
            if not columns:
                columns = _columns(path, row)
                unused += [column for column in columns if column and column not in COLUMNS]
                continue
            if len(row) > len(columns):
                raise ValueError(
                    f"it has {len(row)} cells for {len(columns)} columns: put a cell that holds "
                    "a comma in double quotes"
                )
            cells = dict(zip(columns, row, strict=False))
            if not cells["id"].strip():
                raise ValueError("its id is empty: give each utterance one")
            if cells["id"] in lines:
                raise ValueError(
                    f"its id {cells['id']!r} is that of line {lines[cells['id']]} too: "
                    "an id must be unique"
                )
            lines[cells["id"]] = line
            yield _utterance(cells, path.parent)
    except csv.Error as error:
        raise PipelineError(
            f"{path}, behind line {line}: {error}; write it as a CSV file with commas"
        ) from error
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise PipelineError(f"{path}, line {line}: {error}") from error


def _columns(path: Path, row: list[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in row]
    if "id" not in columns:
        raise PipelineError(
            f"{path} has no column 'id': its first line must name the columns, separated by "
            f"commas, of {', '.join(COLUMNS)}"
        )
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise PipelineError(f"{path} has the column '{column}' twice: leave one of them out")
    return columns


def _utterance(cells: Mapping[str, str], folder: Path) -> Utterance:
    known = {column: cells.get(column, "").strip() or None for column in COLUMNS}
    audio, split, turn = known["audio"], known["split"], known["turn"]
    if split is not None and split.lower() not in _SPLITS:
        raise ValueError(f"its split is {split!r}: write train, validation or test")
    if turn is not None and not re.fullmatch("-?[0-9]{1,18}", turn):
        raise ValueError(f"its turn is {turn!r}: write a whole number")
    return Utterance(
        id=cells["id"],  # exactly: it may be the name of a file
        audio=None if audio is None else folder / audio,
        text=known["text"],
        label=known["label"],
        speaker=known["speaker"],
        session=known["session"],
        dialogue=known["dialogue"],
        turn=None if turn is None else int(turn),
        split=None if split is None else _SPLITS[split.lower()],
    )
