"""A walk through a tree of folders that follows symbolic links."""

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield ``root`` and each folder below it once, with the names of its folders and its files.

    Links are followed, because a corpus is often spread over several disks. A link to a folder that
    was visited before is not followed: a link to a parent folder would never end.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # so that os.walk enters none of them
            continue
        seen.add((status.st_dev, status.st_ino))
        yield Path(folder), folders, files
