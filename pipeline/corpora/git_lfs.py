"""Git LFS pointers: a clone made without Git LFS has small text files in place of the media."""

from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1"
"""The first bytes of a pointer file."""

_LARGEST = 1024  # bytes; the specification says that a pointer is smaller


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer; ``False`` for a file that cannot be read.

    Larger files than a pointer are not opened.
    """
    try:
        if path.stat().st_size >= _LARGEST:
            return False
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False
