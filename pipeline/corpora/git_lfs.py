"""Git LFS: a clone without it holds small text files in place of the media."""

from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How a file begins that stands for another one."""

_LARGEST = 1024  # bytes; the specification says that a pointer is smaller


def is_pointer(path: Path) -> bool:
    """Say whether a file only stands for another one; one that cannot be read does not.

    Only a file that is small enough is opened.
    """
    try:
        if path.stat().st_size >= _LARGEST:
            return False
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False
