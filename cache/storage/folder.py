"""The storage interface: a folder of the cache, on a file system or an object store."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from errno import (
    EACCES,
    EDQUOT,
    EFBIG,
    EHOSTUNREACH,
    ENOENT,
    ENOSPC,
    ENOTCONN,
    ENOTDIR,
    EPERM,
    EROFS,
    ESTALE,
    ETIMEDOUT,
)
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError, NoAccessError

# Begins the names of files that are being written. A killed writer leaves them; nobody reads them.
TEMPORARY = ".tmp-"

_ADVICE = {
    **dict.fromkeys((ENOSPC, EDQUOT, EFBIG), "make room there and run the same command again"),
    **dict.fromkeys((EACCES, EPERM, EROFS), "choose another place, or ask for access to this one"),
    ENOTDIR: "a part of this path is a file: give the path of a folder",
    **dict.fromkeys((ENOENT, ESTALE), "is its file system still mounted?"),
    **dict.fromkeys(
        (EHOSTUNREACH, ENOTCONN, ETIMEDOUT), "run the same command again once the server answers"
    ),
}


@dataclass(frozen=True)
class Upload:
    """An unfinished upload to an object store: it takes space, and readers do not see it."""

    name: str
    """The file, relative to the folder."""
    id: str
    """The store's id of the upload."""
    age: float
    """Seconds since its start."""
    bytes: int
    """Size of the parts that have arrived."""


class Folder(ABC):
    """A folder, local or on an object store. It may be pickled and used after a fork.

    Names are relative to the folder and may contain ``/``. A file or folder appears complete or
    not at all. A missing file is a ``FileNotFoundError``; every other failure is a ``CacheError``
    whose sentence names the path.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the folder's path."""

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """The folder on a local file system, or ``None``."""

    @abstractmethod
    def __truediv__(self, name: str) -> "Folder":
        """Return the folder ``name`` in this one, whether or not it exists."""

    @abstractmethod
    def make(self) -> None:
        """Create the folder and its parents."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files and folders in it, sorted; none if it does not exist."""

    @abstractmethod
    def committed(self) -> list[str]:
        """Return the names of all that :meth:`commit` has completed here, sorted."""

    @abstractmethod
    def size(self, name: str = "") -> int:
        """Return the size of a file, or of all files of a folder, in bytes."""

    @abstractmethod
    def age(self, name: str) -> float:
        """Return the seconds since a file, or the newest file of a folder, was written."""

    def clock_ahead(self) -> float:
        """Return how many seconds this host's clock is ahead of that of the storage.

        :meth:`age` is too large by as much. Of an object store, 0 is returned.
        """
        return 0.0

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    @abstractmethod
    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges of a file, fetched in parallel, each from one byte to before another."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path of a file or folder, or of a local copy if it is remote."""

    def has_link(self, name: str) -> bool:
        """Return whether ``name``, or a folder in it that leads there, is a symbolic link."""
        return False

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file; a reader sees the old content or the new one."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a new file, or return ``False`` if it exists; of several callers one succeeds."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file, or a folder with its content; do nothing if it does not exist."""

    @abstractmethod
    def workspace(self) -> AbstractContextManager[Path]:
        """Give an unused local path, to build a file or a folder there for :meth:`commit`."""

    @abstractmethod
    def commit(self, built: Path, name: str) -> None:
        """Move what was built in the workspace to ``name``, completely or not at all.

        The name contains the hash of the content. An existing file or folder of that name is
        therefore equal, and stays.
        """

    @abstractmethod
    def free(self) -> int | None:
        """Return the free space in bytes, or ``None`` if the storage has no limit."""

    def uploads(self) -> list[Upload]:
        """Return the unfinished uploads into this folder and below, running or abandoned."""
        return []

    def abort(self, upload: Upload) -> None:
        """Delete the parts of an unfinished upload; do nothing if the upload has ended."""
        raise NotImplementedError(upload)


@contextmanager
def translate_os_errors(
    action: str,
    path: object,
    *,
    missing_is_error: bool = False,
    errors: type[Exception] = OSError,
) -> Iterator[None]:
    """Turn an error of the operating system or a server into a sentence that names the path.

    A ``FileNotFoundError`` stays one, unless a missing file is an error here.

    Args:
        action: what was tried, such as ``read``.
        path: the path or URL.
        missing_is_error: whether a missing file becomes a ``CacheError`` too.
        errors: the class of the exceptions to turn into a sentence.
    """
    try:
        yield
    except CacheError:
        raise
    except FileNotFoundError as error:
        if not missing_is_error:
            raise
        raise CacheError(_sentence(action, path, error)) from error
    except errors as error:
        forbidden = isinstance(error, OSError) and error.errno in (EACCES, EPERM, EROFS)
        kind = NoAccessError if forbidden else CacheError
        raise kind(_sentence(action, path, error)) from error


def _sentence(action: str, path: object, error: Exception) -> str:
    reason, advice = f"{type(error).__name__}: {error}", ""
    if isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror or os.strerror(error.errno)
        advice = _ADVICE.get(error.errno, "")
    reason = " ".join(reason.split())
    return f"cannot {action} {path}: {reason}" + (f"; {advice}" if advice else "")
