"""Manifests of utterances for a run that was trained on others."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = ("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn")


def write_manifest(path: Path, utterances: Iterable[Any], **changes: dict[str, Any]) -> Path:
    """Write utterances as a table; ``changes`` is id → the cells that differ."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for utterance in utterances:
            cells = {name: getattr(utterance, name) for name in COLUMNS}
            writer.writerow(cells | changes.get(utterance.id, {}))
    return path


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """Id → the cells of a row, in the order of the file."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}
