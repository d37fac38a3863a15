"""The kernel's page cache: drop files from it, and see how much of them it holds (Linux)."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def drop(files: Sequence[Path]) -> None:
    """Write files to the disk and ask the kernel to drop them from the page cache."""
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident(files: Sequence[Path]) -> float:
    """The share of the files' pages that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = []
    for file in files:
        if not file.stat().st_size:
            continue
        mapped = np.memmap(file, np.uint8, "r")
        flags = np.zeros(-(-mapped.size // os.sysconf("SC_PAGESIZE")), np.uint8)
        start, size = ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size)
        assert not libc.mincore(start, size, ctypes.c_void_p(flags.ctypes.data))
        pages.append(flags & 1)
    return float(np.concatenate(pages).mean())
