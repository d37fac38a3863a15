"""SLURM: a file says what a job asks for, dask-jobqueue submits the jobs and cancels them."""

import importlib.util
import shutil
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dask.utils import parse_bytes
from distributed import Status

from ..errors import PipelineError, UsageError, unknown
from .dask_cluster import KEEP_MEMORY, Cluster, WorkerSizing, connected, quiet

_TEXT, _NUMBER, _TEXTS, _TABLE = str, int, list, dict
# Of dask-jobqueue's SLURMCluster, but for the first.
KEYS: dict[str, type] = {
    "jobs": _NUMBER,
    "cores": _NUMBER,
    "memory": _TEXT,
    "processes": _NUMBER,
    "queue": _TEXT,
    "account": _TEXT,
    "walltime": _TEXT,
    "job_extra_directives": _TEXTS,
    "job_directives_skip": _TEXTS,
    "job_script_prologue": _TEXTS,
    "job_mem": _TEXT,
    "interface": _TEXT,
    "log_directory": _TEXT,
    "local_directory": _TEXT,
    "python": _TEXT,
    "shebang": _TEXT,
    "worker_extra_args": _TEXTS,
    "death_timeout": _NUMBER,
    "scheduler_options": _TABLE,
}
_KINDS = {
    _TEXT: 'text in quotes, such as "8:00:00"',
    _NUMBER: "a whole number of 1 or more",
    _TEXTS: 'a list of texts, such as ["--gres=gpu:1"]',
    _TABLE: "a table",
}


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
        UsageError: it is not there, is no TOML, or holds a key or a value that does not fit.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--slurm {path}: {error.strerror}: give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--slurm {path} is no TOML: {error}") from None
    for key, value in said.items():
        if key not in KEYS:
            raise unknown(f"key in {path}", key, KEYS)
        if not _fits(value, KEYS[key]):
            raise UsageError(f"{path}: {key} = {value!r} must be {_KINDS[KEYS[key]]}")
    for key in ("cores", "memory"):
        if key not in said:
            raise UsageError(f"{path} does not say '{key}', which each job needs")
    try:
        parse_bytes(said["memory"])
    except ValueError:
        raise UsageError(f"{path}: memory = '{said['memory']}' is no size: say \"16 GB\"") from None
    jobs, cores, processes = said.pop("jobs", 1), said.pop("cores"), said.pop("processes", 1)
    if processes > cores:
        raise UsageError(f"{path}: {processes} processes need as many cores at least, not {cores}")
    return SlurmFile(path, jobs, cores, processes, said)


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

    class Job(SLURMJob):
        """One that Dask does not take for unfinished after it was refused or cancelled."""

        async def close(self) -> None:
            await super().close()  # type: ignore[no-untyped-call]
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
                job_cls=Job,  # type: ignore[arg-type]  # annotated as an instance
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


def _fits(value: object, kind: type) -> bool:
    if kind is _NUMBER:
        return type(value) is int and value >= 1
    if kind is _TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, kind)
