"""Where jobs are done, for both stages: this process, worker processes, Dask, SLURM.

A job reads its input and writes its output itself, so that nothing large is sent. Dask takes about
a second to import, and PyTorch longer: both are imported only where jobs are sent to workers.
"""

from .backend import Backend
from .device import visible_gpus
from .dispatch import run_jobs
from .requirements import WorkerRequirements
from .sizing import WorkerSizing

__all__ = ["Backend", "WorkerRequirements", "WorkerSizing", "run_jobs", "visible_gpus"]
