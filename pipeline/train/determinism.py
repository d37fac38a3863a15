"""How a training computes: the same bits each time, on so many threads, without needless work."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

# Of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@contextmanager
def reproducible(threads: int | None = None) -> Iterator[None]:
    """Let the same run give the same bits again on the same machine.

    ``threads`` are those of PyTorch on a CPU; ``None`` leaves them as they are.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as PyTorch asks for on a GPU
    keep_freed_memory()
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    deterministic: Any = torch.utils.deterministic  # typed nowhere
    filled = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # It would make memory that nobody reads before writing it the same too, for a tenth of the time
    # of a light head.
    deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(threads or before[1])
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = filled
        torch.set_num_threads(before[1])


def keep_freed_memory() -> None:
    """Let the C library keep the memory of one batch for the next.

    glibc gives large pieces back at once, and the kernel clears them anew for each batch, which can
    take longer than a light head. The workers of Dask have the same by their environment.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_ARENA_MAX, 1)
