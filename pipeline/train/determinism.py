"""How a training computes: deterministically, with a set number of threads."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@contextmanager
def reproducible(threads: int | None = None) -> Iterator[None]:
    """Make a repeated run give the same bits on the same machine.

    ``threads`` is the number of PyTorch's threads on a CPU; ``None`` does not change it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # PyTorch requires this on a GPU
    keep_freed_memory()
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    deterministic: Any = torch.utils.deterministic  # has no types
    filled = deterministic.fill_uninitialized_memory
    _use_deterministic_algorithms(True)
    # PyTorch would also fill memory that is written before it is read. For a small head that takes
    # a tenth of the time.
    deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads or before[1])
    try:
        yield
    finally:
        _use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = filled
        torch.set_num_threads(before[1])


def _use_deterministic_algorithms(mode: bool) -> None:
    """Call what ``torch.use_deterministic_algorithms`` calls, without importing the compiler.

    It would tell the compiler too, whose import takes seconds.
    """
    torch._C._set_deterministic_algorithms(mode, warn_only=False)


def keep_freed_memory() -> None:
    """Make the C library reuse the memory of one batch for the next.

    By default glibc returns large blocks to the kernel at once, and the kernel clears new ones for
    each batch, which can take longer than a small head. Dask workers get the same settings from
    their environment.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_ARENA_MAX, 1)
