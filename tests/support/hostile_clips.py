"""A corpus of more than 100 files of which each does something that a clip should not."""

import csv
from pathlib import Path

from mser.tests.support import hostile_containers, hostile_paths, hostile_wavs
from mser.tests.support.clip_outcomes import Outcome


def make(folder: Path) -> tuple[Path, dict[str, Outcome]]:
    """Write the files and a manifest of them; return it, and what must become of each by its id."""
    rows: list[tuple[str, str]] = []
    fates: dict[str, Outcome] = {}
    for name, content, fate in (
        *((f"{name}.wav", content, fate) for name, content, fate in hostile_wavs.make()),
        *hostile_containers.make(),
    ):
        (folder / name).write_bytes(content)
        rows.append((name, name))
        fates[name] = fate
    for id, path, fate in hostile_paths.make(folder):
        rows.append((id, path))
        fates[id] = fate
    assert len(fates) == len(rows)
    manifest = folder / "hostile.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "audio"), *rows])
    return manifest, fates
