"""The device to compute on, and the number of cores that this process may use."""

import os

import torch

from ..errors import UsageError, unknown


def chosen_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device of this machine.

    Raises:
        UsageError: the name is another one, or this machine has no GPU that PyTorch can use.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        meant = "cuda" if name.lower().startswith(("gpu", "cuda")) else None
        raise unknown("device", name, ("auto", "cpu", "cuda"), meant)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': this machine has no GPU that PyTorch can use")
    return torch.device(name)


def cores() -> int:
    """Return how many cores this process may use: in a SLURM job those of the job, not the node."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
