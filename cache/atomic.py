"""Files and folders that appear whole or not at all, on any file system with an atomic rename."""

import os
from pathlib import Path
from uuid import uuid4

# Left behind by a killed writer, never read, safe to delete at any age.
TEMPORARY = ".tmp-"


def temporary_beside(path: Path) -> Path:
    """Return an unused name in the same folder, so that a rename never crosses a file system."""
    return path.with_name(f"{TEMPORARY}{uuid4().hex}-{path.name}")


def write_file(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, and never a part."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def commit_folder(temporary: Path, path: Path) -> None:
    """Bring all files below ``temporary`` to the disk, then give the folder its name."""
    for folder, _, files in os.walk(temporary):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))
    temporary.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
