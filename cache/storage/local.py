"""A folder on a file system that has an atomic rename: a disk, NFS, Lustre. No locks are used."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINVAL, ENOSYS, ENOTSUP, EPERM
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .folder import TEMPORARY, Folder, translate_os_errors
from .group import make_folder, refuse_locked, share


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder below a local path."""

    at: Path

    def __str__(self) -> str:
        return str(self.at)

    @property
    def name(self) -> str:
        return self.at.name

    @property
    def path(self) -> Path:
        return self.at

    def __truediv__(self, name: str) -> "LocalFolder":
        return LocalFolder(self.at / name)

    def make(self) -> None:
        with translate_os_errors("create the folder", self, missing_is_error=True):
            make_folder(self.at)

    def names(self) -> list[str]:
        with (
            suppress(FileNotFoundError),
            translate_os_errors("list", self),
            suppress(NotADirectoryError),
        ):
            return sorted(os.listdir(self.at))
        return []

    def committed(self) -> list[str]:
        return [name for name in self.names() if not name.startswith(TEMPORARY)]

    def size(self, name: str = "") -> int:
        path = self.at / name
        with translate_os_errors("access", path):
            if not path.is_dir():
                return path.stat().st_size
        return sum(status.st_size for status in self._files(path))

    def age(self, name: str) -> float:
        path = self.at / name
        with translate_os_errors("access", path):
            newest = max((status.st_mtime for status in self._files(path)), default=None)
            return time.time() - (path.stat().st_mtime if newest is None else newest)

    def clock_ahead(self) -> float:
        with translate_os_errors("write", self, missing_is_error=True):
            temporary = self._temporary("clock")
            try:
                before = time.time()
                self._write(temporary, b"")
                modified, after = temporary.stat().st_mtime, time.time()
                # Up to a second is the time of writing, or a file system with whole seconds.
                return after - modified if after - modified > 1 else min(0.0, before - modified)
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        with translate_os_errors("read", self.at / name):
            return (self.at / name).read_bytes()

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with translate_os_errors("read", self.at / name), (self.at / name).open("rb") as file:
            return [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with translate_os_errors("read", self.at / name), (self.at / name).open("rb") as file:
            yield file

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with translate_os_errors("read", self.at / name):
            yield self.at / name

    def has_link(self, name: str) -> bool:
        parts = Path(name).parts
        with translate_os_errors("access", self.at / name):
            return any(self.at.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))

    def write(self, name: str, content: bytes) -> None:
        with translate_os_errors("write", self.at / name, missing_is_error=True):
            temporary = self._temporary(name)
            try:
                self._write(temporary, content)
                temporary.replace(self.at / name)
            finally:
                temporary.unlink(missing_ok=True)
            _sync(self.at)

    def create(self, name: str, content: bytes) -> bool:
        # Also on NFS, a hard link either takes the name or fails, and its file is complete.
        with translate_os_errors("write", self.at / name, missing_is_error=True):
            temporary = self._temporary(name)
            try:
                self._write(temporary, content)
                os.link(temporary, self.at / name)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (ENOSYS, ENOTSUP, EPERM):
                    raise
                return self._create_without_links(name, content)
            finally:
                temporary.unlink(missing_ok=True)
            return True

    def remove(self, name: str) -> None:
        path = self.at / name
        with translate_os_errors("delete", path), suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                refuse_locked(path)
                # Renamed first, so no reader finds a part of it.
                renamed = self._temporary(path.name)
                path.rename(renamed)
                shutil.rmtree(renamed)
            else:
                path.unlink()

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        built = self._temporary("built")
        with translate_os_errors("write below", self, missing_is_error=True):
            try:
                yield built
            finally:
                with suppress(OSError):  # the first error is the one to report
                    shutil.rmtree(built) if built.is_dir() else built.unlink(missing_ok=True)

    def commit(self, built: Path, name: str) -> None:
        with translate_os_errors("write", self.at / name, missing_is_error=True):
            share(built)
            for folder, folders, files in os.walk(built):
                for name_inside in (*folders, *files):
                    share(Path(folder) / name_inside)
                for file in files:
                    _sync(Path(folder) / file)
                _sync(Path(folder))
            if built.is_file():
                _sync(built)
            try:
                built.rename(self.at / name)
            except OSError:  # EEXIST or ENOTEMPTY, but EPERM on sshfs
                if not (self.at / name).exists():
                    raise
            _sync(self.at)

    def free(self) -> int | None:
        with translate_os_errors("access", self, missing_is_error=True):
            return shutil.disk_usage(self.at).free

    def _temporary(self, name: str) -> Path:
        """Return an unused name in the folder, so that a rename never crosses a file system."""
        return self.at / f"{TEMPORARY}{uuid4().hex}-{name}"

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        share(path)

    def _create_without_links(self, name: str, content: bytes) -> bool:
        try:
            with (self.at / name).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        share(self.at / name)
        return True

    @staticmethod
    def _files(path: Path) -> Iterator[os.stat_result]:
        """Yield the status of every file below a folder that can be read."""
        folders = [str(path)]
        while folders:
            # Another process may have just deleted it, or it may be a file.
            with (
                suppress(FileNotFoundError, NotADirectoryError, PermissionError),
                os.scandir(folders.pop()) as found,
            ):
                for item in found:
                    if item.is_dir(follow_symlinks=False):
                        folders.append(item.path)
                    else:
                        with suppress(FileNotFoundError):
                            yield item.stat(follow_symlinks=False)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems do not support fsync for folders, and do not need it.
        if not (path.is_dir() and error.errno in (EINVAL, ENOTSUP)):
            raise
    finally:
        os.close(descriptor)
