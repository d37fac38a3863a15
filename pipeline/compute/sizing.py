"""How many workers a stage wants, and what they import."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class WorkerSizing:
    """How many workers a stage wants, and how many jobs each worker does at once."""

    workers: Callable[["torch.device"], int]
    """Device → number of workers on this machine, if the user gives none."""
    threads: Callable[["torch.device | str", int], int]
    """Device and cores of a worker → number of jobs that the worker does at once."""
    imports: tuple[str, ...] = ()
    """Modules that every job needs; workers of this machine import them once, together."""
