"""Dask clusters: where jobs are done, and how they are sent there.

Both stages use them. A job does its own writing, so that nothing large travels.
"""

from .backend import Backend
from .dask_cluster import Cluster, WorkerSizing, local_cluster, visible_gpus
from .dispatch import check_workers, run_tasks
from .requirements import Task, WorkerRequirements

__all__ = [
    "Backend",
    "Cluster",
    "Task",
    "WorkerRequirements",
    "WorkerSizing",
    "check_workers",
    "local_cluster",
    "run_tasks",
    "visible_gpus",
]
