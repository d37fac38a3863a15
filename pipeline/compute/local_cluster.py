"""Worker processes on this machine, with a scheduler in this process, for this command alone.

All connections need a key that exists only in these processes, because every user of the machine
can reach their ports.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import (
    Client,
    Nanny,
    Scheduler,
    Security,
    SpecCluster,
    Worker,
    WorkerPlugin,
)

from .backend import MEMORY_ADVICE
from .dask_cluster import Cluster, quiet
from .fork_server import start_method
from .killed_workers import KilledWorkers, when_killed

_RESTART_SECONDS = 300.0  # how long a worker may take to start again
_LOOPBACK = {"host": "127.0.0.1", "protocol": "tls", "dashboard": False}


@contextmanager
def local_cluster(
    workers: int, threads: int, gpus: Sequence[str], imports: Sequence[str] = ()
) -> Iterator[Cluster]:
    """Start worker processes on this machine, each with ``threads`` threads and one of ``gpus``.

    All workers need the modules ``imports``.
    """
    security, killed = Security.temporary(), KilledWorkers(MEMORY_ADVICE)
    options = {
        "nthreads": threads,
        **_LOOPBACK,
        "security": security,
        "worker_class": _SilentWorker,
        "killed": killed,
        "silence_logs": logging.CRITICAL,
        # Dask counts memory-mapped shards as memory, and would stop a worker without need.
        "memory_limit": 0,
    }
    specs: dict[int, dict[str, Any]] = {
        # The new process sets this before it uses CUDA.
        number: {
            "cls": _Nanny,
            "options": {
                **options,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
            },
        }
        for number in range(workers)
    }
    scheduler = {"cls": SilentScheduler, "options": {**_LOOPBACK, "security": security}}
    with (
        start_method(imports) as method,
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
        SpecCluster(specs, scheduler, security=security, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_IgnoreInterrupt())
        advice = "check whether this machine has enough memory"
        yield Cluster(client, "this machine", advice, _RESTART_SECONDS, True, killed)


class _NoHttp:
    """A server without Dask's web pages, which ask for no key; they would be open to all."""

    def start_http_server(self, *_: object, **__: object) -> None: ...


class SilentScheduler(_NoHttp, Scheduler):
    """A scheduler that listens on one port, with TLS."""


class _SilentWorker(_NoHttp, Worker): ...


class _Nanny(Nanny):
    """Starts a worker process again that ended, and counts those that were killed."""

    def __init__(self, *arguments: Any, killed: KilledWorkers, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_worker_exit_sync = when_killed(self, killed.add)  # type: ignore[method-assign]


class _IgnoreInterrupt(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal; only the main process must react to it."""

    def setup(self, worker: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
