"""Where jobs are done, for both stages: this process, worker processes, Dask, SLURM.

A job reads its input and writes its output itself, so that nothing large is sent.
"""

from .backend import Backend
from .dask_cluster import Cluster, WorkerSizing, visible_gpus
from .dispatch import run_jobs
from .local_cluster import local_cluster
from .requirements import WorkerRequirements

__all__ = [
    "Backend",
    "Cluster",
    "WorkerRequirements",
    "WorkerSizing",
    "local_cluster",
    "run_jobs",
    "visible_gpus",
]
