"""One NumPy file an utterance, and a table that says which is whose."""

import csv
import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from urllib.parse import quote

import numpy as np

from .selection import Selection
from .sources import INDEX, RECORD

_LONGEST = 200  # of a file's name, most file systems allow 255 bytes


def write_npy(selection: Selection, folder: Path) -> None:
    """Write each utterance's (layers, frames, dim) as an ``.npy``, with ``ids.csv``."""
    names = file_names(selection.entry.ids)
    for id, array in selection:
        np.save(folder / f"{names[id]}.npy", array, allow_pickle=False)
    with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
        # All quoted, so that an id which is empty, or holds line ends, comes back as it is.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "file"])
        writer.writerows([id, f"{name}.npy"] for id, name in names.items())
    record = json.dumps(selection.describe(), indent=2) + "\n"
    (folder / RECORD).write_text(record, encoding="utf-8")


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Return a file's name for each id: the id, quoted as in a URL, where it can be one.

    Otherwise a number. An id may hold anything, and must never lead out of the folder; no two
    names differ by their case alone.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    left = []
    for id in ids:
        name = quote(id, safe="")
        if name in ("", ".", "..") or len(name) > _LONGEST or name.lower() in taken:
            left.append(id)
        else:
            names[id] = name
            taken.add(name.lower())
    numbers = (str(number) for number in count() if str(number) not in taken)
    return names | dict(zip(left, numbers, strict=False))
