"""SLURM: a TOML file describes the jobs, dask-jobqueue submits and cancels them."""

import importlib.util
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Required

import dask
import torch
from dask.utils import parse_bytes
from distributed import Scheduler, Security, Status
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from ..errors import PipelineError, UsageError
from ..validation import Count, checked, file_table, read_toml
from .dask_cluster import Cluster, connected, quiet
from .fork_server import MALLOC_ENVIRONMENT
from .killed_workers import KilledWorkers
from .local_cluster import SilentScheduler
from .sizing import WorkerSizing
from .submitted_jobs import SubmittedJobs
from .tls import with_worker_files


def _size(memory: str) -> str:
    try:
        parse_bytes(memory)
    except ValueError:
        raise PydanticCustomError("size", 'a size, such as "16 GB"') from None
    return memory


# SLURM limits the memory. Dask counts memory-mapped shards, and would stop a worker needlessly.
# The workers' web pages ask for no key: they have no content, and only their machine reaches them.
_WORKER_ARGS = ["--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
_ENVIRONMENT = {**MALLOC_ENVIRONMENT, "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]"}


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
    shared_temp_directory: str


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


def memory_advice(file: Path) -> str:
    """Return what to do if the memory of the jobs is full, as a part of a sentence."""
    return f"give more memory, or fewer processes, in {file}"


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
    file: SlurmFile,
    device: torch.device,
    wait_seconds: float,
    sizing: WorkerSizing,
    advance: Callable[[], object],
) -> Iterator[Cluster]:
    """Submit the jobs and connect to their workers; at the end cancel the jobs that are left.

    The scheduler is in this process. Jobs that SLURM ends are submitted again while the work
    advances; ``advance`` returns a value that changes while unfinished work does.

    Raises:
        PipelineError: this machine has no SLURM, or SLURM refuses a job.
    """
    check_slurm(file)
    name, killed = f"the SLURM jobs of {file.path}", KilledWorkers(memory_advice(file.path))
    advice = "check squeue and the logs of the jobs"
    with (
        quiet(),
        submitted(file, device, sizing, advance) as jobs,
        connected(jobs.cluster.scheduler_address, jobs.cluster.security) as client,
    ):
        killed.watch(client)
        yield Cluster(client, name, advice, wait_seconds, False, killed, jobs)


@contextmanager
def submitted(
    file: SlurmFile,
    device: torch.device,
    sizing: WorkerSizing,
    advance: Callable[[], object] = lambda: None,
) -> Iterator[SubmittedJobs]:
    """Submit the jobs, as a ``SLURMCluster`` of dask-jobqueue, and cancel them at the end.

    Raises:
        PipelineError: SLURM refuses a job, or the scheduler cannot start.
    """
    folder = Path(file.options.get("shared_temp_directory", "~"))
    with (
        with_worker_files(Security.temporary(), folder) as security,
        dask.config.set(
            {
                # Otherwise Dask cancels a job whose worker takes longer to start again.
                "distributed.deploy.lost-worker-timeout": "365 days",
                "distributed.scheduler.allowed-failures": 1,
            }
        ),
        _started(file, device, sizing, security) as cluster,
    ):

        async def submit() -> None:
            await cluster

        def submit_all() -> None:
            try:
                cluster.sync(submit)
            except (OSError, RuntimeError, ValueError) as error:
                raise _failed(file, "SLURM refused a job", error) from error

        # scale() would not raise an error if SLURM refuses a job.
        for _ in range(file.jobs):
            cluster.worker_spec.update(cluster.new_worker_spec())
        submit_all()
        yield SubmittedJobs(cluster, submit_all, str(file.path), advance)


def _started(
    file: SlurmFile, device: torch.device, sizing: WorkerSizing, security: Security
) -> Any:
    """Start the scheduler; return a ``SLURMCluster`` that has no jobs yet.

    Raises:
        PipelineError: the scheduler cannot start.
    """
    with signal_handlers_kept():
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob  # noqa: PLC0415 -- an optional package

    class Job(SLURMJob):
        """A job that Dask counts as finished after SLURM refused or cancelled it."""

        async def close(self) -> None:
            await super().close()  # type: ignore[no-untyped-call]
            self.status = Status.closed

    options = dict(file.options)
    options.pop("shared_temp_directory", None)
    wants_gpu = any("gpu" in text for text in options.get("job_extra_directives", []))
    threads = sizing.threads("cuda" if wants_gpu else device, max(1, file.cores // file.processes))
    of_scheduler = options.pop("scheduler_options", {})
    wants_pages = {"dashboard", "dashboard_address"} & set(of_scheduler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # another program has the port
            return SLURMCluster(
                job_cls=Job,  # type: ignore[arg-type]  # annotated as an instance
                job_name="mser",
                # dask-jobqueue starts a thread for each core; our workers may have fewer threads.
                cores=threads * file.processes,
                job_cpu=file.cores,
                processes=file.processes,
                silence_logs="critical",
                security=security,
                scheduler_cls=Scheduler if wants_pages else SilentScheduler,
                worker_extra_args=[*_WORKER_ARGS, *options.pop("worker_extra_args", [])],
                job_script_prologue=[
                    *(f"export {name}={value}" for name, value in _ENVIRONMENT.items()),
                    *options.pop("job_script_prologue", []),
                ],
                scheduler_options={"dashboard_address": ":0", **of_scheduler},
                **options,
            )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _failed(file, "cannot start a scheduler", error) from error


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Keep the handlers of this process's signals while a module is imported.

    dask-jobqueue sets one for SIGINT with which Ctrl-C ends a command with exit code 0.
    """
    set_handler = signal.signal
    signal.signal = lambda number, _: signal.getsignal(number)  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler


def _failed(file: SlurmFile, what: str, error: Exception) -> PipelineError:
    last_line = str(error).strip().rpartition("\n")[2]
    return PipelineError(f"--slurm {file.path}: {what}: {last_line}")
