"""A corpus of more than 100 files each with a different fault or oddity."""

import csv
from pathlib import Path

from mser.tests.support import hostile_containers, hostile_paths, hostile_wavs
from mser.tests.support.clip_outcomes import Outcome


def make(folder: Path) -> tuple[Path, dict[str, Outcome]]:
    """Write the files and a manifest of them; return it, and id → expected outcome."""
    rows: list[tuple[str, str]] = []
    outcomes: dict[str, Outcome] = {}
    for name, content, outcome in (
        *((f"{name}.wav", content, outcome) for name, content, outcome in hostile_wavs.make()),
        *hostile_containers.make(),
    ):
        (folder / name).write_bytes(content)
        rows.append((name, name))
        outcomes[name] = outcome
    for id, path, outcome in hostile_paths.make(folder):
        rows.append((id, path))
        outcomes[id] = outcome
    assert len(outcomes) == len(rows)
    manifest = folder / "hostile.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "audio"), *rows])
    return manifest, outcomes
