"""Memory maps of NumPy files; nothing is ever unpickled."""

import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from ...cache.formats.arrays import Array
from ..errors import PipelineError

_PICKLED = (
    "it contains pickled objects, which are refused because reading them can run any code: save "
    "plain numbers with np.save"
)
_BLOCK = 2**20
# Features compress to half their size, zeros to a thousandth.
_MOST_EXPANSION = 100
_ALWAYS_UNPACKED = 64 * 2**20  # bytes


class UnusableError(Exception):
    """Features that cannot be stored; ``reason`` is a word, ``detail`` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def map_npy(path: Path) -> Array:
    """Map an ``.npy`` into memory, read-only.

    Raises:
        UnusableError: it cannot be read, is cut off, or contains pickled objects.
    """
    try:
        with path.open("rb") as file:
            return _map(file)
    except OSError as error:
        raise UnusableError("unreadable", f"{path}: {error.strerror or error}") from error


def open_npz(path: Path, names: Iterable[str]) -> dict[str, Array]:
    """Map arrays of an ``.npz`` into memory, read-only; compressed ones are unpacked to disk.

    Raises:
        PipelineError: an array is missing, the file is damaged, or contains pickled objects.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            for name in names:
                if f"{name}.npy" not in members:
                    raise PipelineError(
                        f"{path} has no array '{name}': store feats, lengths and keys"
                    )
                try:
                    arrays[name] = _map_member(path, archive, f"{name}.npy")
                except UnusableError as error:
                    raise PipelineError(f"{path}, array '{name}': {error.detail}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PipelineError(
            f"{path} is damaged or is not an .npz ({error}): write it again with np.savez"
        ) from error
    return arrays


def _map_member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    """Map an array inside the archive, or a compressed one from an unnamed temporary file.

    In both cases the array is read once completely, to check it against the archive's checksum.
    """
    info = archive.getinfo(name)
    compressed = info.compress_type != zipfile.ZIP_STORED
    if compressed:
        _refuse_bomb(archive, info)
    with tempfile.TemporaryFile() if compressed else path.open("rb") as file:
        with archive.open(info) as member:
            while block := member.read(_BLOCK):
                if compressed:
                    file.write(block)
        if compressed:
            file.seek(0)
        else:
            # A member's bytes follow its local header: 30 bytes, whose last four are the lengths
            # of a name and of an extra field, and then these two.
            file.seek(info.header_offset + 26)
            file.seek(sum(np.frombuffer(file.read(4), "<u2").tolist()), 1)
        return _map(file)


def _refuse_bomb(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Compare the declared sizes of a compressed member before it is unpacked."""
    with archive.open(info) as member, _translate_damage():
        shape, _, dtype = _header(member)
        size = member.tell() + math.prod(shape) * dtype.itemsize
    if size != info.file_size:
        raise UnusableError(
            "unreadable",
            f"its shape {shape} of {dtype} takes {size} bytes, and the archive declares "
            f"{info.file_size}: write it again with np.savez",
        )
    if size > max(_ALWAYS_UNPACKED, _MOST_EXPANSION * info.compress_size):
        raise UnusableError(
            "too-large",
            f"its {info.compress_size} bytes would unpack to {size}, which no features do: write "
            "it again with np.savez",
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise UnusableError(
            "too-large",
            f"it unpacks to {size} bytes, and {tempfile.gettempdir()} has {free} free: set TMPDIR "
            "to a larger disk",
        )


def _map(file: IO[bytes]) -> Array:
    """Map the array that begins at the current position of ``file``."""
    with _translate_damage():
        shape, fortran, dtype = _header(file)
        with np.errstate(over="raise"):  # a damaged shape may have any size
            mapped: Array = np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")
        return mapped


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape, the order and the dtype of the array that begins at the current position."""
    start = file.tell()
    if file.read(1) == b"\x80":  # the first byte of a pickle
        raise UnusableError("pickled", _PICKLED)
    file.seek(start)
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnusableError("pickled", _PICKLED)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


@contextmanager
def _translate_damage() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UnusableError("unreadable", f"it is not a complete .npy file ({error})") from error
