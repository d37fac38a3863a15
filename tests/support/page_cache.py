"""The page cache of Linux: drop files from it, and measure which share of them it holds."""

import ctypes
import os
from collections.abc import Iterable
from os import fsync  # tests of the cache replace os.fsync by one that does nothing
from pathlib import Path

import numpy as np

MAX_SHARE = 0.01  # of the pages of dropped files that may stay in the page cache


class StillCachedError(Exception):
    """The page cache keeps these files, or the system cannot drop them."""


def drop_from_page_cache(folder: Path) -> None:
    """Drop all files under a folder from the page cache.

    Raises:
        StillCachedError: more than 1 % of their pages are still in the page cache, or the system
            has no ``posix_fadvise``.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not hasattr(os, "posix_fadvise"):
        raise StillCachedError("this system has no posix_fadvise")
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            fsync(descriptor)  # pages that are not on the disk yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    share = cached_share(files)
    if share > MAX_SHARE:
        raise StillCachedError(f"this file system keeps {share:.0%} of the pages in the page cache")


def cached_share(files: Iterable[Path]) -> float:
    """Return the share of the files' pages that are in the page cache, 0 to 1.

    Raises:
        StillCachedError: ``mincore`` failed.
    """
    cached = total = 0
    libc = ctypes.CDLL(None, use_errno=True)
    for file in files:
        if not file.stat().st_size:
            continue
        mapped = np.memmap(file, np.uint8, "r")
        pages = np.zeros(-(-mapped.size // os.sysconf("SC_PAGESIZE")), np.uint8)
        address, size = ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size)
        if libc.mincore(address, size, ctypes.c_void_p(pages.ctypes.data)):
            raise StillCachedError(f"mincore failed: {os.strerror(ctypes.get_errno())}")
        cached, total = cached + int((pages & 1).sum()), total + len(pages)
    return cached / max(1, total)


def resident_bytes(folder: Path) -> int:
    """Return how much of the files under a folder is resident memory of this process (Linux)."""
    resident, counts = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        first, *others = line.split()
        if not first.endswith(":"):  # the first line of a map ends with the path of its file
            counts = str(folder) in line
        elif first == "Rss:" and counts:
            resident += int(others[0]) * 1024
    return resident
