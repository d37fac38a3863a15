"""Where to compute: a GPU where there is one, and on how many cores."""

import os

import torch

from ..errors import UsageError, unknown


def chosen_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device of this machine.

    Raises:
        UsageError: another name, or a GPU where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': this machine has no GPU that PyTorch can use")
    return torch.device(name)


def cores() -> int:
    """Return how many cores this process may use: a SLURM job's, not all that the node has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
