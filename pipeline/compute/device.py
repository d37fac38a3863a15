"""The device to compute on, and the cores and GPUs that this process may use."""

import os
from typing import TYPE_CHECKING

from ..errors import UsageError, unknown

if TYPE_CHECKING:
    import torch


def chosen_device(name: str) -> "torch.device":
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device of this machine.

    Raises:
        UsageError: the name is another one, or this machine has no GPU that PyTorch can use.
    """
    import torch  # noqa: PLC0415 -- seconds to import

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


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` does."""
    import torch  # noqa: PLC0415 -- as above

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names[:count]]
