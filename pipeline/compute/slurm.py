"""SLURM: a TOML file describes the jobs, dask-jobqueue submits and cancels them."""

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
from ..validation import Count, checked, file_table, read_toml
from .dask_cluster import MALLOC_ENVIRONMENT, Cluster, WorkerSizing, connected, quiet


def _size(memory: str) -> str:
    try:
        parse_bytes(memory)
    except ValueError:
        raise PydanticCustomError("size", 'a size, such as "16 GB"') from None
    return memory


@file_table
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
    """The content of the file given by ``--slurm``."""

    path: Path
    """Path of the file."""
    jobs: int
    """How many jobs to submit; default 1."""
    cores: int
    """Cores of each job."""
    processes: int
    """Worker processes in each job, which share its cores; default 1."""
    options: dict[str, Any]
    """The other keys; dask-jobqueue gets them unchanged."""

    def as_json(self) -> dict[str, Any]:
        """Return the content of the file as JSON values."""
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


def check_slurm(file: SlurmFile) -> None:
    """Check that this machine can submit jobs.

    Raises:
        PipelineError: dask-jobqueue is not installed, or this machine has no SLURM.
    """
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise PipelineError("--slurm needs dask-jobqueue: pip install 'mser[slurm]'")
    if shutil.which("sbatch") is None:
        raise PipelineError(
            f"--slurm {file.path}: this machine has no sbatch: run this where jobs are submitted"
        )


@contextmanager
def slurm_cluster(
    file: SlurmFile, device: torch.device, wait_seconds: float, sizing: WorkerSizing
) -> Iterator[Cluster]:
    """Submit the jobs and connect to their workers; at the end cancel the jobs that are left.

    The scheduler is in this process.

    Raises:
        PipelineError: this machine has no SLURM, or SLURM refuses a job.
    """
    check_slurm(file)
    name = f"the SLURM jobs of {file.path}"
    advice = "check squeue and the logs of the jobs"
    with (
        quiet(),
        submitted(file, device, sizing) as cluster,
        connected(cluster.scheduler_address) as client,
    ):
        yield Cluster(client, name, advice, wait_seconds, started_here=False)


@contextmanager
def submitted(file: SlurmFile, device: torch.device, sizing: WorkerSizing) -> Iterator[Any]:
    """Submit the jobs, as a ``SLURMCluster`` of dask-jobqueue, and cancel them at the end.

    Raises:
        PipelineError: SLURM refuses a job, or the scheduler cannot start.
    """
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob  # noqa: PLC0415 -- an optional package

    class Job(SLURMJob):
        """A job that Dask counts as finished after SLURM refused or cancelled it."""

        async def close(self) -> None:
            await super().close()  # type: ignore[no-untyped-call]
            self.status = Status.closed

    options = dict(file.options)
    wants_gpu = any("gpu" in text for text in options.get("job_extra_directives", []))
    threads = sizing.threads("cuda" if wants_gpu else device, max(1, file.cores // file.processes))
    # SLURM limits the memory. Dask counts memory-mapped shards, and would stop a worker needlessly.
    worker_args = ["--memory-limit", "0", "--no-dashboard"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # another program has the port
            cluster = SLURMCluster(
                job_cls=Job,  # type: ignore[arg-type]  # annotated as an instance
                job_name="mser",
                # dask-jobqueue starts a thread for each core; our workers may have fewer threads.
                cores=threads * file.processes,
                job_cpu=file.cores,
                processes=file.processes,
                silence_logs="critical",
                worker_extra_args=[*worker_args, *options.pop("worker_extra_args", [])],
                job_script_prologue=[
                    *(f"export {name}={value}" for name, value in MALLOC_ENVIRONMENT.items()),
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
        # scale() would not raise an error if SLURM refuses a job.
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
    last_line = str(error).strip().rpartition("\n")[2]
    return PipelineError(f"--slurm {file.path}: {what}: {last_line}")
