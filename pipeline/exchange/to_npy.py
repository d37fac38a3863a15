"""Export to one NumPy file per utterance, with a table of ids and files."""

import csv
import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from urllib.parse import quote

import numpy as np

from .selection import Selection
from .sources import INDEX, RECORD

_LONGEST = 200  # characters of a file name; most file systems allow 255 bytes


def write_npy(selection: Selection, folder: Path) -> None:
    """Write each utterance's (layers, frames, dim) as an ``.npy``, with ``ids.csv``."""
    names = file_names(selection.entry.ids)
    for id, array in selection:
        np.save(folder / f"{names[id]}.npy", array, allow_pickle=False)
    with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
        # All cells are quoted, so that empty ids and ids with line ends are read back unchanged.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "file"])
        writer.writerows([id, f"{name}.npy"] for id, name in names.items())
    record = json.dumps(selection.describe(), indent=2) + "\n"
    (folder / RECORD).write_text(record, encoding="utf-8")


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Return a file name for each id: the id, quoted as in a URL, if possible, else a number.

    An id may contain any characters, but its file is always in the folder. No two names differ only
    in capital letters.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    numbered = []
    for id in ids:
        name = quote(id, safe="")
        if name in ("", ".", "..") or len(name) > _LONGEST or name.lower() in taken:
            numbered.append(id)
        else:
            names[id] = name
            taken.add(name.lower())
    numbers = (str(number) for number in count() if str(number) not in taken)
    return names | dict(zip(numbered, numbers, strict=False))
