"""A folder of the cache: what every place must be able to do for a cache to live there."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EFBIG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError

# Left behind by a killed writer, and never read.
TEMPORARY = ".tmp-"

_ADVICE = {
    **dict.fromkeys((ENOSPC, EDQUOT, EFBIG), "make room there and run the same command again"),
    **dict.fromkeys((EACCES, EPERM, EROFS), "choose another cache, or ask for the right to write"),
    **dict.fromkeys((ENOENT, ENOTDIR, ESTALE), "is its file system still mounted?"),
}


@dataclass(frozen=True)
class Upload:
    """A file that is on its way to an object store: it takes room, and nobody sees it yet."""

    name: str
    id: str
    age: float
    bytes: int


class Folder(ABC):
    """A folder, local or on an object store. It may be pickled and used after a fork.

    Names are relative to the folder and may hold ``/``. A file or folder appears whole or not at
    all. Everything raises ``CacheError``, one sentence with the place in it, except that what is
    not there is a ``FileNotFoundError``.
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
        """Return the folder ``name`` in this one, whether or not it is there."""

    @abstractmethod
    def make(self) -> None:
        """Make the folder, and those above it."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files and folders in it, sorted; none if it is not there."""

    @abstractmethod
    def committed(self) -> list[str]:
        """Return the names of what :meth:`commit` has brought here whole, sorted."""

    @abstractmethod
    def size(self, name: str = "") -> int:
        """Return the bytes of a file, or of all files of a folder."""

    @abstractmethod
    def age(self, name: str) -> float:
        """Return the seconds since a file, or the newest file of a folder, was written."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    @abstractmethod
    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return pieces of a file, each from a first byte to one before a last, in parallel."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path of a file or folder; of one that is elsewhere, a copy."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file; a reader sees the old content or the new one."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a file if there is none of that name, or return ``False``; one of many succeeds."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file or a folder with all that is in it; what is not there is fine."""

    @abstractmethod
    def workspace(self) -> AbstractContextManager[Path]:
        """Give an unused local path at which to build a file or a folder for :meth:`commit`."""

    @abstractmethod
    def commit(self, built: Path, name: str) -> None:
        """Bring what was built in the workspace here, whole or not at all.

        ``name`` says what the content is: if something of that name is here already, it is the
        same, and stays.
        """

    @abstractmethod
    def free(self) -> int | None:
        """Return the bytes that are free, or ``None`` where there is no such number."""

    def uploads(self) -> list[Upload]:
        """Return what is on its way here or into a folder in it, at work or left behind."""
        return []

    def abort(self, upload: Upload) -> None:
        """Delete what has arrived of an upload; that it is over is fine."""
        raise NotImplementedError(upload)


@contextmanager
def translate_os_errors(
    action: str,
    place: object,
    *,
    missing_is_error: bool = False,
    errors: type[Exception] = OSError,
) -> Iterator[None]:
    """Turn what an operating system or a server says into a sentence that names the place.

    A file that is not there stays a ``FileNotFoundError``, unless that itself is the news.
    """
    try:
        yield
    except CacheError:
        raise
    except FileNotFoundError as error:
        if not missing_is_error:
            raise
        raise CacheError(_sentence(action, place, error)) from error
    except errors as error:
        raise CacheError(_sentence(action, place, error)) from error


def _sentence(action: str, place: object, error: Exception) -> str:
    reason, advice = f"{type(error).__name__}: {error}", ""
    if isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror or os.strerror(error.errno)
        advice = _ADVICE.get(error.errno, "")
    reason = " ".join(reason.split())
    return f"cannot {action} {place}: {reason}" + (f"; {advice}" if advice else "")
