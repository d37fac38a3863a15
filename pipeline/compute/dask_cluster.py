"""Dask clusters: worker processes on this machine, and a scheduler that runs already."""

import asyncio
import logging
import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin, rpc

from ..errors import PipelineError, UsageError
from ..progress import print_note
from .fork_server import start_method

_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 0.5
# Environment variables with which glibc keeps the memory that a forward pass frees, for the next
# pass. With Dask's own values glibc returns it to the system at once, and a pass takes far longer.
MALLOC_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
_RESTART_SECONDS = 300.0  # how long a worker of this machine may take to start again
_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})/?")
_SILENT_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    client: Client
    """The connection to the scheduler."""
    name: str
    """How errors name the cluster."""
    advice: str
    """What an error tells the user to do if no worker comes."""
    wait_seconds: float
    """How long to wait without any worker."""
    started_here: bool
    """Whether this process started the workers, in its own environment: no check is needed."""

    def threads(self) -> int:
        """Return how many jobs all workers do at once; wait until there is a worker.

        Raises:
            PipelineError: the scheduler is gone, or no worker has come.
        """
        started, noted = time.monotonic(), self.started_here
        while not (threads := sum(self._threads_by_worker().values())):
            waited = time.monotonic() - started
            if waited > self.wait_seconds:
                raise PipelineError(
                    f"{self.name}: no worker for {_duration(self.wait_seconds)}; finished work is "
                    f"kept: {self.advice}, then run the same command again"
                )
            if not noted and waited > _POLL_SECONDS:
                limit = _duration(self.wait_seconds)
                print_note(f"mser: {self.name}: no worker yet, waiting up to {limit}")
                noted = True
            time.sleep(_POLL_SECONDS)
        return threads

    def connection_lost(self) -> PipelineError:
        """Return the error for a scheduler that is gone."""
        return PipelineError(
            f"the connection to {self.name} is lost; finished work is kept: start a scheduler, "
            "then run the same command again"
        )

    def _threads_by_worker(self) -> dict[str, int]:
        if self.client.status != "running":
            raise self.connection_lost()
        try:
            return dict(self.client.nthreads())
        except (OSError, CancelledError) as error:
            raise self.connection_lost() from error


@dataclass(frozen=True)
class WorkerSizing:
    """How many workers a stage wants, and how many jobs each worker does at once."""

    workers: Callable[[torch.device], int]
    """Device → number of workers on this machine, if the user gives none."""
    threads: Callable[[torch.device | str, int], int]
    """Device and cores of a worker → number of jobs that the worker does at once."""
    imports: tuple[str, ...] = ()
    """Modules that every job needs; workers of this machine import them once, together."""


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` does."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names[:count]]


@contextmanager
def local_cluster(
    workers: int, threads: int, gpus: Sequence[str], imports: Sequence[str] = ()
) -> Iterator[Cluster]:
    """Start worker processes on this machine, each with ``threads`` threads and one of ``gpus``.

    All workers need the modules ``imports``.
    """
    options = {
        "nthreads": threads,
        "host": "127.0.0.1",
        "silence_logs": logging.CRITICAL,
        # Dask counts memory-mapped shards as memory, and would stop a worker without need.
        "memory_limit": 0,
        "dashboard": False,
    }
    specs: dict[int, dict[str, Any]] = {
        # The new process sets this before it uses CUDA.
        number: {
            "cls": Nanny,
            "options": {
                **options,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
            },
        }
        for number in range(workers)
    }
    # Even without a dashboard the scheduler opens a port for its health page: use any free port.
    web = {"dashboard": False, "dashboard_address": ":0"}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", **web}}
    with (
        start_method(["distributed.nanny", *imports], MALLOC_ENVIRONMENT) as method,
        dask.config.set(
            {
                "distributed.worker.multiprocessing-method": method,
                "distributed.nanny.pre-spawn-environ": {},  # not Dask's values of MALLOC_…
                "distributed.worker.profile.enabled": False,  # would sample 100 times a second
                "distributed.scheduler.allowed-failures": 1,
                # Otherwise Dask gives up a worker for good while that worker is starting again.
                "distributed.deploy.lost-worker-timeout": "365 days",
            }
        ),
        quiet(),
        SpecCluster(specs, scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_IgnoreInterrupt())
        advice = "check whether this machine has enough memory"
        yield Cluster(client, "this machine", advice, _RESTART_SECONDS, started_here=True)


@contextmanager
def running_scheduler(address: str, wait_seconds: float) -> Iterator[Cluster]:
    """Connect to a scheduler that runs already, and leave it running.

    Raises:
        PipelineError: no scheduler answers at the address.
    """
    check_scheduler(address)
    name, advice = f"the scheduler at {address}", f"start a worker with 'dask worker {address}'"
    with quiet(), connected(address) as client:
        yield Cluster(client, name, advice, wait_seconds, started_here=False)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler.

    Raises:
        PipelineError: no scheduler answers at the address.
    """
    with warnings.catch_warnings():  # another version of Dask that still works
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, name="mser")
        except (OSError, ImportError, ValueError) as error:
            raise _no_scheduler(address, error) from error
    with client:
        yield client


def check_address(address: str) -> None:
    """Check the form of a scheduler's address.

    Raises:
        UsageError: the address is malformed.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[3]) < 2**16:
        raise UsageError(f"scheduler '{address}': give an address such as tcp://node1:8786")


def check_scheduler(address: str) -> None:
    """Check that a scheduler answers.

    Raises:
        PipelineError: nothing answers at the address, or something that is not a scheduler.
    """

    async def server_type() -> str:
        # Dask would wait for ever on a server that accepts the connection and sends nothing.
        async with asyncio.timeout(_CONNECT_SECONDS):
            async with rpc(address, timeout=_CONNECT_SECONDS) as server:
                return str((await server.identity(n_workers=0))["type"])

    with quiet(), ThreadPoolExecutor(1) as pool:  # in a notebook this thread has a loop already
        try:
            kind = pool.submit(asyncio.run, server_type()).result()
        except Exception as error:  # the bytes of another program can raise anything
            raise _no_scheduler(address, error) from error
    if kind != "Scheduler":
        raise PipelineError(f"{address} is a Dask {kind.lower()}: give its scheduler's address")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's own log off standard error; mser prints its own errors, one sentence each."""
    loggers = [logging.getLogger(name) for name in _SILENT_LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _IgnoreInterrupt(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal; only the main process must react to it."""

    def setup(self, worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _no_scheduler(address: str, error: Exception) -> PipelineError:
    return PipelineError(
        f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
        "'dask scheduler', and give the address that it prints"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 60 else f"{seconds:g} s"
