"""One row of a manifest: what its columns may hold, wherever it was read from."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .utterance import Utterance

COLUMNS = ("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn", "split")
_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def columns_of(names: list[str]) -> list[str]:
    """Return the names of columns as they are meant: case and space around them say nothing.

    Raises:
        ValueError: a column that is used is there twice.
    """
    columns = [name.strip().lower() for name in names]
    for column in COLUMNS:
        if columns.count(column) > 1:
            raise ValueError(f"it has the column '{column}' twice: leave one of them out")
    return columns


def utterance_of(cells: Mapping[str, Any], folder: Path) -> Utterance:
    """Return the utterance that a row describes; a relative path of a clip is below ``folder``.

    Raises:
        ValueError: a cell holds what its column cannot.
    """
    known = {column: _text(column, cells.get(column)) for column in COLUMNS}
    if known["id"] is None:
        raise ValueError("its id is empty: give each utterance one")
    audio, split, turn = known["audio"], known["split"], known["turn"]
    if audio is not None and "\0" in audio:
        raise ValueError(f"its audio is {audio!r}, which no file can be called")
    if split is not None and split.lower() not in _SPLITS:
        raise ValueError(f"its split is {split!r}: write train, validation or test")
    if turn is not None and not re.fullmatch("-?[0-9]{1,18}", turn):
        raise ValueError(f"its turn is {turn!r}: write a whole number")
    exact = cells["id"]
    return Utterance(
        id=exact if isinstance(exact, str) else known["id"],  # it may be the name of a file
        audio=None if audio is None else folder / audio,
        text=known["text"],
        label=known["label"],
        speaker=known["speaker"],
        session=known["session"],
        dialogue=known["dialogue"],
        turn=None if turn is None else int(turn),
        split=None if split is None else _SPLITS[split.lower()],
    )


def _text(column: str, value: Any) -> str | None:
    """Return a cell as text; ``None`` where nothing is known."""
    if isinstance(value, float):
        if math.isnan(value):  # how pandas writes that it knows nothing
            return None
        if value.is_integer():
            value = int(value)  # and how it writes whole numbers in a column with such a gap
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        shown = repr(value)
        shown = shown if len(shown) < 60 else f"{shown[:57]}..."
        raise ValueError(f"its {column} is {shown}: write text or a number")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"its {column} is {text!r}, which holds half a character") from None
    return text or None
