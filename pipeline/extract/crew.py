"""How the extraction wants its workers: few processes that share encoders, passes side by side."""

import torch

from ..compute import WorkerSizing, visible_gpus
from ..compute.device import cores
from ..encoders import CONCURRENT

# More would wait for each other in Python. Where two passes cannot run at once, each has a process.
_CORES_A_WORKER = 4 if CONCURRENT else 1


def threads_of(device: torch.device | str, cores: int) -> int:
    """Return how many jobs a process with so many cores has in hand at once.

    On a CPU each is computed on a thread of its own; one more than cores takes more from their
    caches than it gains while others wait for a disk. On a GPU one decodes, one computes, and one
    writes.
    """
    return 3 if torch.device(device).type == "cuda" else cores


def default_workers(device: torch.device) -> int:
    """Return one worker for each GPU, or for each group of cores; its jobs share the encoders."""
    if device.type == "cuda":
        return max(1, len(visible_gpus()))
    return -(-cores() // _CORES_A_WORKER)


WORKER_SIZING = WorkerSizing(default_workers, threads_of)
