"""A corpus described by a table that a user wrote: one utterance per row.

    id,audio,text,label,speaker,session,dialogue,turn,split
    Ses01F_impro01_F000,wav/Ses01F_impro01_F000.wav,Excuse me.,neutral,Ses01_F,1,Ses01F_impro01,0,

Further columns are ``video``, the path of a video, and ``video_start``, ``video_end`` (in seconds)
and ``video_side`` (left or right), if only this part of the video shows the utterance.

Only ``id`` is required. A missing column, and a cell that is empty or null, mean "not known".
Numbers are read as their text, so a speaker may be 7. Other columns of texts and numbers are kept
for the leakage check; of a Parquet file, those of texts. ``audio`` and ``video`` are relative to
the folder of the file; ``turn`` is a whole number; ``split`` is train, validation or test. Small
and capital letters in column names do not matter, and a column that is missing may have another
usual name, such as ``path`` for ``audio`` or ``emotion`` for ``label``; a note then says so.
:mod:`~mser.pipeline.corpora.tables` lists the kinds of files.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, nan
from pathlib import Path
from typing import Any

from ..errors import PipelineError, UsageError
from .manifest import COLUMNS as KEPT_COLUMNS
from .manifest import VIDEO_COLUMNS
from .tables import cell_text, read_table
from .utterance import SIDES, Corpus, Utterance

COLUMNS = (
    *("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn", "split"),
    *("video", "video_start", "video_end", "video_side"),
)
_OTHER_NAMES = {
    "audio": ("path", "wav", "file", "filename"),
    "text": ("transcript", "transcription", "utterance"),
    "label": ("emotion",),
}
"""Column → other names for it, the first of which is taken that a row has."""
_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def read_manifest(path: Path, name: str) -> Corpus:
    """Read the corpus ``name`` from a manifest.

    Its classes are the labels that occur, sorted. Its protocol is ``official`` if every utterance
    has a split, ``leave-one-speaker-out`` if every utterance has a speaker and none has a session,
    and ``leave-one-session-out`` otherwise. A note lists the columns that nothing uses unless the
    leakage check is asked to.

    Raises:
        UsageError: there is no such file, or its suffix is not that of a table.
        PipelineError: the file is damaged, a cell has a wrong value, or an id is empty or occurs
            twice.
    """
    utterances: list[Utterance] = []
    others: dict[str, dict[str, str]] = {}
    places: dict[str, str] = {}  # id -> the row that has it
    renamed: dict[str, str] = {}  # another name -> the column that it is read as
    try:
        for place, row in read_table(path, COLUMNS, required=("id",), ignore_case=True):
            cells = _renamed(row, renamed)
            try:
                utterance = _utterance(cells, path.parent)
                if utterance.id in places:
                    raise ValueError(
                        f"its id {utterance.id!r} is also the id of {places[utterance.id]}: give "
                        "each utterance its own id"
                    )
            except ValueError as error:
                raise PipelineError(f"{path}, {place}: {error}") from error
            places[utterance.id] = place
            utterances.append(utterance)
            for column in cells:
                if column not in (*KEPT_COLUMNS, *VIDEO_COLUMNS, ""):
                    values = others.setdefault(column, {})
                    with suppress(ValueError):  # such as a list of numbers
                        if (text := cell_text(cells, column)) is not None:
                            values[utterance.id] = text
    except FileNotFoundError:
        raise UsageError(f"there is no manifest '{path}': give a file that exists") from None
    if not utterances:
        raise PipelineError(f"{path} contains no utterance: give it one row per utterance")
    notes = [
        f"{path.name}: column '{name}' is read as {column}" for name, column in renamed.items()
    ]
    notes += [f"{path.name}: columns not used: {', '.join(others)}"] if others else []
    labels = {utterance.label for utterance in utterances if utterance.label is not None}
    return Corpus(
        name,
        utterances,
        tuple(sorted(labels)),
        _protocol(utterances),
        notes=tuple(notes),
        columns={name: values for name, values in others.items() if values},
    )


def _renamed(cells: Mapping[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """Return cells by the names of :data:`COLUMNS`; ``renamed`` gets the other names."""
    names = {name: name for name in cells}
    for column, others in _OTHER_NAMES.items():
        other = next((name for name in others if name in cells), None)
        if column not in cells and other is not None:
            names[other] = renamed[other] = column
    return {names[name]: value for name, value in cells.items()}


def _protocol(utterances: Sequence[Utterance]) -> str:
    if all(utterance.split is not None for utterance in utterances):
        return "official"
    speakers = all(utterance.speaker is not None for utterance in utterances)
    if speakers and all(utterance.session is None for utterance in utterances):
        return "leave-one-speaker-out"
    return "leave-one-session-out"


def _utterance(cells: Mapping[str, Any], folder: Path) -> Utterance:
    """Return the utterance of a row; the relative path of a clip is below ``folder``.

    Raises:
        ValueError: a cell has a wrong value.
    """
    texts = {column: cell_text(cells, column) for column in COLUMNS}
    if texts["id"] is None:
        raise ValueError("its id is empty: give each utterance an id")
    audio, video, split, turn = (texts[name] for name in ("audio", "video", "split", "turn"))
    for column, path in (("audio", audio), ("video", video)):
        if path is not None and "\0" in path:
            raise ValueError(f"its {column} is {path!r}, which cannot be a file name")
    if split is not None and split.lower() not in _SPLITS:
        raise ValueError(f"its split is {split!r}: write train, validation or test")
    if turn is not None and not re.fullmatch("-?[0-9]{1,18}", turn):
        raise ValueError(f"its turn is {turn!r}: write a whole number")
    side = texts["video_side"]
    if side is not None and side.lower() not in SIDES:
        raise ValueError(f"its video_side is {side!r}: write {' or '.join(SIDES)}")
    start, end = _seconds(texts, "video_start"), _seconds(texts, "video_end")
    if end is not None and end <= (start or 0):
        raise ValueError(f"its video_end is {end:g}: write a time after video_start")
    exact = cells["id"]
    return Utterance(
        id=exact if isinstance(exact, str) else texts["id"],  # not stripped: may be a file name
        audio=None if audio is None else folder / audio,
        text=texts["text"],
        label=texts["label"],
        speaker=texts["speaker"],
        session=texts["session"],
        dialogue=texts["dialogue"],
        turn=None if turn is None else int(turn),
        split=None if split is None else _SPLITS[split.lower()],
        video=None if video is None else folder / video,
        video_start=start,
        video_end=end,
        video_side=None if side is None else side.lower(),
    )


def _seconds(texts: Mapping[str, str | None], column: str) -> float | None:
    """Return a time in seconds; ``None`` if the cell is empty."""
    text = texts[column]
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not 0 <= seconds < inf:
        raise ValueError(f"its {column} is {text!r}: write seconds, such as 6.29")
    return seconds
