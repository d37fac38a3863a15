"""SLURM: a file says what a job asks for, dask-jobqueue submits the jobs and cancels them."""

import importlib.util
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Required

import torch
from dask.utils import parse_bytes
from distributed import Status
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from ..errors import PipelineError, UsageError
from ..validation import Count, checked, read_toml, table
from .dask_cluster import KEEP_MEMORY, Cluster, WorkerSizing, connected, quiet


def _size(memory: str) -> str:
    try:
        parse_bytes(memory)
    except ValueError:
        raise PydanticCustomError("size", 'a size, such as "16 GB"') from None
    return memory


@table
class SlurmKeys(TypedDict, total=False):
    """The keys of a SLURM file; all but ``jobs`` are those of dask-jobqueue's ``SLURMCluster``."""

    jobs: Count
    cores: Required[Count]
    memory: Required[Annotated[str, AfterValidator(_size)]]
    processes: Count
    queue: str
    account: str
    walltime: str
    job_extra_directives: list[str]
    job_directives_skip: list[str]
    job_script_prologue: list[str]
    job_mem: str
    interface: str
    log_directory: str
    local_directory: str
    python: str
    shebang: str
    worker_extra_args: list[str]
    death_timeout: Count
    scheduler_options: dict[str, Any]


@dataclass(frozen=True)
class SlurmFile:
    """What ``--slurm`` says: ``jobs`` jobs of ``cores`` cores and ``processes`` workers each.

    ``options`` go to dask-jobqueue as they are.
    """

    path: Path
    jobs: int
    cores: int
    processes: int
    options: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return what the file says, as JSON values."""
        numbers = {"jobs": self.jobs, "cores": self.cores, "processes": self.processes}
        return {**numbers, **self.options}


def read_slurm_file(path: Path) -> SlurmFile:
    """Read a SLURM file.

    Raises:
        UsageError: the file is absent, is not TOML, or holds a key or a value that does not fit.
    """
    options: dict[str, Any] = {**checked(SlurmKeys, read_toml(path, "--slurm"), str(path))}
    jobs, cores = options.pop("jobs", 1), options.pop("cores")
    processes = options.pop("processes", 1)
    if processes > cores:
        raise UsageError(f"{path}: {processes} processes need at least {processes} cores")
    return SlurmFile(path, jobs, cores, processes, options)


def find_slurm(file: SlurmFile) -> None:
    """Look whether jobs can be submitted from here.

    Raises:
        PipelineError: dask-jobqueue is not installed, or SLURM is not there.
    """
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise PipelineError("--slurm requirements dask-jobqueue: pip install 'mser[slurm]'")
    if shutil.which("sbatch") is None:
        raise PipelineError(
            f"--slurm {file.path}: there is no sbatch here: run this where jobs are submitted"
        )


@contextmanager
def slurm_cluster(
    file: SlurmFile, device: torch.device, patience: float, sizing: WorkerSizing
) -> Iterator[Cluster]:
    """Submit the jobs, and cancel those that are left at the end; the scheduler is in this process.

    Raises:
        PipelineError: SLURM is not here, or refuses a job.
    """
    find_slurm(file)
    name = f"the SLURM jobs of {file.path}"
    advice = "look at squeue and at what the jobs printed"
    with (
        quiet(),
        submitted(file, device, sizing) as cluster,
        connected(cluster.scheduler_address) as client,
    ):
        yield Cluster(client, name, advice, patience, started_here=False)


@contextmanager
def submitted(file: SlurmFile, device: torch.device, sizing: WorkerSizing) -> Iterator[Any]:
    """Submit the jobs, as a ``SLURMCluster`` of dask-jobqueue, and cancel them at the end.

    Raises:
        PipelineError: SLURM refuses a job, or the scheduler cannot start.
    """
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob  # noqa: PLC0415 -- an optional package

    class Job(SLURMJob):  # type: ignore[misc]
        """One that Dask does not take for unfinished after it was refused or cancelled."""

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    options = dict(file.options)
    wants_gpu = any("gpu" in one for one in options.get("job_extra_directives", []))
    threads = sizing.threads("cuda" if wants_gpu else device, max(1, file.cores // file.processes))
    # SLURM watches over the memory; Dask would count maps of shards, and stop a worker for nothing.
    ours = ["--memory-limit", "0", "--no-dashboard"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a port that is taken
            cluster = SLURMCluster(
                job_cls=Job,
                job_name="mser",
                # To dask-jobqueue a core is a thread that does tasks; ours are fewer than cores.
                cores=threads * file.processes,
                job_cpu=file.cores,
                processes=file.processes,
                silence_logs="critical",
                worker_extra_args=[*ours, *options.pop("worker_extra_args", [])],
                job_script_prologue=[
                    *(f"export {name}={value}" for name, value in KEEP_MEMORY.items()),
                    *options.pop("job_script_prologue", []),
                ],
                scheduler_options={
                    "dashboard_address": ":0",
                    **options.pop("scheduler_options", {}),
                },
                **options,
            )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _failed(file, "cannot start a scheduler", error) from error
    with cluster:
        # Not by scale(), which says nothing of a job that is refused.
        for _ in range(file.jobs):
            cluster.worker_spec.update(cluster.new_worker_spec())

        async def submit() -> None:
            await cluster

        try:
            cluster.sync(submit)
        except (OSError, RuntimeError, ValueError) as error:
            raise _failed(file, "SLURM refused a job", error) from error
        yield cluster


def _failed(file: SlurmFile, what: str, error: Exception) -> PipelineError:
    said = str(error).strip().rpartition("\n")[2]
    return PipelineError(f"--slurm {file.path}: {what}: {said}")
