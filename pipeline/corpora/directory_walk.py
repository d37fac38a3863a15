"""A walk through a tree of folders, links to others included."""

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield ``root`` and each folder below it, once, with the names of its folders and its files.

    Links are followed, since a corpus often lies on several disks; one that leads to a folder which
    was seen before is not, or a link to a folder above would be followed without end.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # os.walk goes into none of them
            continue
        seen.add((status.st_dev, status.st_ino))
        yield Path(folder), folders, files
