"""A folder on an object store, through fsspec: s3://, gs://, abfs:// and others.

An object appears complete or not at all, and there is no rename. A shard of several files is
therefore uploaded with its top-level files last, and is complete once they exist.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from ..errors import CacheError
from .folder import Folder, Upload, translate_os_errors
from .s3_ranges import S3Ranges

# A server's client raises exceptions of its own.
_translate_errors = partial(translate_os_errors, errors=Exception)
# Answers of S3 and similar stores, unknown to fsspec, if a file exists or is just being created.
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_BLOCK = 2**18  # bytes fetched at once of a file that is read in small pieces


class _FileSystem:
    """One connection for each process, because a connection does not survive a fork."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url, self.options = url, dict(options)
        self._process, self._opened = -1, None
        self._ranges: S3Ranges | None = None

    def __reduce__(self) -> tuple[type["_FileSystem"], tuple[str, Mapping[str, Any]]]:
        return _FileSystem, (self.url, self.options)

    def get(self) -> Any:
        if self._process != os.getpid():
            # No cache of listings: other processes write too, so a listing is soon out of date.
            with _translate_errors("open", self.url, missing_is_error=True):
                self._opened, _ = fsspec.core.url_to_fs(
                    self.url, **{"use_listings_cache": False, **self.options}
                )
            self._ranges = S3Ranges(self._opened) if _is_s3(self._opened) else None
            self._process = os.getpid()
        return self._opened

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[Any]:
        """Return ranges of an object, or an exception instead of one that cannot be read."""
        fs = self.get()
        if self._ranges and (contents := self._ranges.read(path, ranges)):
            return contents
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        found: list[Any] = fs.cat_ranges([path] * len(ranges), starts, stops, on_error="return")
        return found


class RemoteFolder(Folder):
    """A folder at an fsspec URL."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        file_system: _FileSystem | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._file_system = file_system or _FileSystem(self.url, options or {})

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteFolder) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> None:
        return None

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(f"{self.url}/{name}", file_system=self._file_system)

    def make(self) -> None:
        pass  # object stores have no empty folders

    def names(self) -> list[str]:
        paths = self._listed(partial(self._fs.ls, detail=False))
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths if self._in(path))

    def committed(self) -> list[str]:
        paths = self._listed(self._fs.find)
        parts = [path[len(self._key()) + 1 :].split("/") for path in paths]
        return sorted({names[0] for names in parts if len(names) <= 2})

    def size(self, name: str = "") -> int:
        with _translate_errors("access", self._url(name)):
            info = self._fs.info(self._key(name))
            if info["type"] == "file":
                return int(info["size"])
            files = self._fs.find(self._key(name), detail=True).values()
            return sum(int(file["size"]) for file in files)

    def age(self, name: str) -> float:
        with _translate_errors("access", self._url(name)):
            files = self._fs.find(self._key(name))
            if not files:
                raise FileNotFoundError(self._url(name))
            newest = max(self._fs.modified(file).timestamp() for file in files)
            return time.time() - float(newest)

    def read(self, name: str) -> bytes:
        # Without this option, s3fs asks for the size of the file before each read.
        at_once = {"max_concurrency": 1} if _is_s3(self._fs) else {}
        with _translate_errors("read", self._url(name)):
            content: bytes = self._fs.cat_file(self._key(name), **at_once)
            return content

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with _translate_errors("read", self._url(name)):
            contents = self._file_system.read_ranges(self._key(name), ranges)
            for content, (start, stop) in zip(contents, ranges, strict=True):
                if isinstance(content, BaseException):
                    raise content
                if len(content) != stop - start:
                    raise EOFError(f"it ends before byte {stop}")
            return contents

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        blocks = {"block_size": _BLOCK, "cache_type": "blockcache"}
        with (
            _translate_errors("read", self._url(name)),
            self._fs.open(self._key(name), "rb", **blocks) as file,
        ):
            yield file

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="mser-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "copy"
            with _translate_errors("read", f"{self._url(name)} into {folder}"):
                self._fs.get(self._key(name), str(copy), recursive=True)
            yield copy

    def write(self, name: str, content: bytes) -> None:
        with _translate_errors("write", self._url(name), missing_is_error=True):
            self._fs.pipe_file(self._key(name), content)

    def create(self, name: str, content: bytes) -> bool:
        with _translate_errors("write", self._url(name), missing_is_error=True):
            try:
                self._fs.pipe_file(self._key(name), content, mode="create")
            except OSError as error:
                if not (isinstance(error, FileExistsError) or _code(error) in _TAKEN):
                    raise
                # The file is ours if the store's first answer was lost and we asked again.
                with suppress(FileNotFoundError):
                    return self.read(name) == content
                return False
            return True

    def remove(self, name: str) -> None:
        # The top level first: what an interrupted deletion leaves is then not a complete shard.
        with _translate_errors("delete", self._url(name)), suppress(FileNotFoundError):
            for file in sorted(self._fs.find(self._key(name)), key=lambda file: file.count("/")):
                self._fs.rm_file(file)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="mser-"))
        try:
            with translate_os_errors("write below", folder, missing_is_error=True):
                yield folder / "built"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, built: Path, name: str) -> None:
        files = [file for file in (built, *built.rglob("*")) if file.is_file()]
        deepest_first = sorted(files, key=lambda file: -len(file.parts))
        with _translate_errors("write", self._url(name), missing_is_error=True):
            for file in deepest_first:
                inside = file.relative_to(built).parts
                self._fs.put_file(str(file), self._key("/".join((name, *inside))))

    def free(self) -> int | None:
        return None

    def uploads(self) -> list[Upload]:
        if not _is_s3(self._fs):
            return []  # other stores delete unfinished uploads themselves
        bucket, key, _ = self._fs.split_path(self._key())
        prefix = f"{key}/" if key else ""
        # Not every user may list them, and not every store supports it.
        with _translate_errors("list", self), suppress(OSError):
            request = {"Bucket": bucket, "Prefix": prefix}
            answer = self._fs.call_s3("list_multipart_uploads", **request)
            return [self._upload(bucket, prefix, upload) for upload in answer.get("Uploads", [])]
        return []

    def _upload(self, bucket: str, prefix: str, upload: Mapping[str, Any]) -> Upload:
        request = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        parts = self._fs.call_s3("list_parts", **request).get("Parts", [])
        return Upload(
            name=upload["Key"].removeprefix(prefix),
            id=upload["UploadId"],
            age=time.time() - upload["Initiated"].timestamp(),
            bytes=sum(part["Size"] for part in parts),
        )

    def abort(self, upload: Upload) -> None:
        bucket, key, _ = self._fs.split_path(self._key(upload.name))
        with _translate_errors("delete", self._url(upload.name)), suppress(FileNotFoundError):
            self._fs.abort_mpu(bucket, key, upload.id)

    @property
    def _fs(self) -> Any:
        return self._file_system.get()

    def _url(self, name: str = "") -> str:
        return f"{self.url}/{name}" if name else self.url

    def _key(self, name: str = "") -> str:
        key: str = self._fs._strip_protocol(self._url(name))
        return key

    def _in(self, path: str) -> bool:
        return path.rstrip("/") != self._key()

    def _listed(self, list_paths: Callable[[str], list[str]]) -> list[str]:
        """Return the paths in the folder; a missing bucket is an error, a missing folder is not."""
        with _translate_errors("list", self):
            try:
                return list_paths(self._key())
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise CacheError(f"cannot list {self}: {error}") from error
                return []


def _is_s3(fs: Any) -> bool:
    return hasattr(fs, "call_s3")


def _code(error: OSError) -> str:
    """Return the code that S3 gave an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
