"""Dask clusters: where jobs are done, and how they are sent there.

Both stages use them. A job does its own writing, so that nothing large travels.
"""

from .backend import Place
from .dask_cluster import Cluster, Crew, local_cluster, visible_gpus
from .dispatch import check_workers, done
from .requirements import Needs, Task

__all__ = [
    "Cluster",
    "Crew",
    "Needs",
    "Place",
    "Task",
    "check_workers",
    "done",
    "local_cluster",
    "visible_gpus",
]
