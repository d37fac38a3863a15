"""Dask clusters to work on: worker processes on this machine, and a scheduler that runs already."""

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

_CONNECT = 10.0  # seconds
_POLL = 0.5
# A forward pass takes and frees large pieces of memory, which glibc keeps for the next one by this.
# By Dask's own choice it gives all back at once, and a pass takes far longer.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
_RESTART = 300.0  # seconds in which a worker of this machine that died must be there again
_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})/?")
_SILENT = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


@dataclass(frozen=True)
class Cluster:
    """A connected cluster, and what to say of it when it fails.

    Without a worker for ``patience`` seconds it is given up. ``started_here`` are workers of the
    same machine and environment, which need no look at what they have.
    """

    client: Client
    name: str
    advice: str
    patience: float
    started_here: bool

    def threads(self) -> int:
        """Return how many jobs all workers do at once, having waited for a worker.

        Raises:
            PipelineError: the scheduler is gone, or no worker has come.
        """
        started, said = time.monotonic(), self.started_here
        while not (threads := sum(self._ask().values())):
            waited = time.monotonic() - started
            if waited > self.patience:
                raise PipelineError(
                    f"{self.name}: no worker for {_time(self.patience)}; what was finished is "
                    f"kept: {self.advice}, then run the same command again"
                )
            if not said and waited > _POLL:
                wait = f"waiting up to {_time(self.patience)} for one"
                print_note(f"mser: {self.name}: no worker yet, {wait}")
                said = True
            time.sleep(_POLL)
        return threads

    def lost(self) -> PipelineError:
        """Say that the scheduler is gone."""
        return PipelineError(
            f"{self.name} went away: what was finished is kept; start one and run the same "
            "command again"
        )

    def _ask(self) -> dict[str, int]:
        if self.client.status != "running":
            raise self.lost()
        try:
            return dict(self.client.nthreads())
        except (OSError, CancelledError) as error:
            raise self.lost() from error


@dataclass(frozen=True)
class WorkerSizing:
    """How a stage wants its workers.

    ``workers`` gives their number on this machine for a device, where the user gives none;
    ``threads`` how many jobs a worker with so many cores has in hand at once, for a device.
    """

    workers: Callable[[torch.device], int]
    threads: Callable[[torch.device | str, int], int]


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` does."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(one) for one in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names[:count]]


@contextmanager
def local_cluster(workers: int, threads: int, gpus: Sequence[str]) -> Iterator[Cluster]:
    """Start so many worker processes of so many threads here; of ``gpus`` each sees one."""
    options = {
        "nthreads": threads,
        "host": "127.0.0.1",
        "silence_logs": logging.CRITICAL,
        # Maps of shards count as memory to Dask, which would stop a worker for nothing.
        "memory_limit": 0,
        "dashboard": False,
    }
    specs: dict[int, dict[str, Any]] = {
        # Set in the new process before CUDA is asked for. Dask's pre-spawn environment would be
        # set in this one, which all workers' nannies share.
        number: {
            "cls": Nanny,
            "options": {
                **options,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
            },
        }
        for number in range(workers)
    }
    # Even without a dashboard it has a page for health, on a port that may be taken.
    web = {"dashboard": False, "dashboard_address": ":0"}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", **web}}
    with (
        dask.config.set(
            {
                "distributed.worker.multiprocessing-method": "spawn",  # torch survives no fork
                "distributed.nanny.pre-spawn-environ": KEEP_MEMORY,
                "distributed.worker.profile.enabled": False,  # a hundred looks a second
                "distributed.scheduler.allowed-failures": 1,
                # Otherwise a worker that is just being started again is taken for lost, for good.
                "distributed.deploy.lost-worker-timeout": "365 days",
            }
        ),
        quiet(),
        SpecCluster(specs, scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_IgnoreInterrupt())
        advice = "see whether this machine has memory left"
        yield Cluster(client, "this machine", advice, _RESTART, started_here=True)


@contextmanager
def running_scheduler(address: str, patience: float) -> Iterator[Cluster]:
    """Connect to a scheduler that others have started, and leave it running.

    Raises:
        PipelineError: no scheduler is there.
    """
    find_scheduler(address)
    name, advice = f"the scheduler at {address}", f"start one with 'dask worker {address}'"
    with quiet(), connected(address) as client:
        yield Cluster(client, name, advice, patience, started_here=False)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler, which must be there."""
    with warnings.catch_warnings():  # of other versions of Dask, as long as they understand us
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT, name="mser")
        except (OSError, ImportError, ValueError) as error:
            raise _absent(address, error) from error
    with client:
        yield client


def check_address(address: str) -> None:
    """Refuse what is no address of a scheduler.

    Raises:
        UsageError: so it is.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[3]) < 2**16:
        raise UsageError(f"scheduler '{address}': give an address such as tcp://node1:8786")


def find_scheduler(address: str) -> None:
    """Look whether a scheduler is there.

    Raises:
        PipelineError: nothing answers, or something else.
    """

    async def kind() -> str:
        # Dask would wait for ever on what takes a connection and says nothing.
        async with asyncio.timeout(_CONNECT):
            async with rpc(address, timeout=_CONNECT) as there:
                return str((await there.identity(n_workers=0))["type"])

    with quiet(), ThreadPoolExecutor(1) as pool:  # in a notebook this thread has a loop already
        try:
            found = pool.submit(asyncio.run, kind()).result()
        except Exception as error:  # whatever a stranger's bytes are taken for
            raise _absent(address, error) from error
    if found != "Scheduler":
        raise PipelineError(f"at {address} is a Dask {found.lower()}: give its scheduler's address")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's own log off standard error: what matters of it is said in a sentence."""
    loggers = [logging.getLogger(name) for name in _SILENT]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


class _IgnoreInterrupt(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal; the one that asked for the work answers it."""

    def setup(self, worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _absent(address: str, error: Exception) -> PipelineError:
    return PipelineError(
        f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
        "'dask scheduler', and give the address that it prints"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 60 else f"{seconds:g} s"
