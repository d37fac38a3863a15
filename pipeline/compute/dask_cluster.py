"""A connected Dask cluster, and the connection to a scheduler that runs already."""

import asyncio
import logging
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Client, Security, rpc

from ..errors import PipelineError
from ..progress import print_note
from .killed_workers import KilledWorkers
from .submitted_jobs import SubmittedJobs
from .tls import TlsFiles, client_security

_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 0.5
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
    killed: KilledWorkers | None = None
    """The worker processes that were killed, if this command has started them."""
    slurm: SubmittedJobs | None = None
    """The SLURM jobs that hold the workers, if this command has submitted them."""

    def threads(self) -> int:
        """Return how many jobs all workers do at once; wait until there is a worker.

        SLURM jobs that have ended are submitted again.

        Raises:
            PipelineError: the scheduler is gone, no worker has come, SLURM jobs end without
                having finished anything, or workers are killed before any job is finished.
        """
        started, noted = time.monotonic(), self.started_here
        self._keep_up()
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
            self._keep_up()
        return threads

    @property
    def ended_jobs(self) -> int:
        """How many SLURM jobs are known to have ended."""
        return self.slurm.ended if self.slurm else 0

    def has_lost_jobs(self, ended_before: int) -> bool:
        """Return whether SLURM jobs have ended, with their workers, since there were fewer."""
        if self.slurm:
            self.slurm.check()
        return self.ended_jobs > ended_before

    def advanced(self) -> None:
        """Note that a job was finished, so that SLURM jobs are worth being submitted again."""
        if self.slurm:
            self.slurm.advanced()
        if self.killed:
            self.killed.advanced()

    def _keep_up(self) -> None:
        if self.slurm:
            self.slurm.keep_up()
        if self.killed:
            self.killed.check()

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


@contextmanager
def running_scheduler(
    address: str, wait_seconds: float, tls: TlsFiles | None = None
) -> Iterator[Cluster]:
    """Connect to a scheduler that runs already, and leave it running.

    Raises:
        UsageError: the certificates are not there.
        PipelineError: no scheduler answers at the address.
    """
    check_scheduler(address, tls)
    name, advice = f"the scheduler at {address}", f"start a worker with 'dask worker {address}'"
    with quiet(), connected(address, client_security(address, tls)) as client:
        yield Cluster(client, name, advice, wait_seconds, started_here=False)


@contextmanager
def connected(address: str, security: Security) -> Iterator[Client]:
    """Connect to a scheduler.

    Raises:
        PipelineError: no scheduler answers at the address.
    """
    with warnings.catch_warnings():  # another version of Dask that still works
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, name="mser", security=security)
        except (OSError, ImportError, ValueError) as error:
            raise _no_scheduler(address, error) from error
    with client:
        yield client


def check_scheduler(address: str, tls: TlsFiles | None = None) -> None:
    """Check that a scheduler answers.

    Raises:
        UsageError: the certificates are not there.
        PipelineError: nothing answers at the address, or something that is not a scheduler.
    """
    arguments = client_security(address, tls).get_connection_args("client")

    async def server_type() -> str:
        # Dask would wait for ever on a server that accepts the connection and sends nothing.
        async with asyncio.timeout(_CONNECT_SECONDS):
            async with rpc(address, timeout=_CONNECT_SECONDS, connection_args=arguments) as server:
                return str((await server.identity(n_workers=0))["type"])

    with quiet(), ThreadPoolExecutor(1) as pool:  # in a notebook this thread has a loop already
        try:
            kind = pool.submit(asyncio.run, server_type()).result()
        except Exception as error:  # the bytes of another program can raise anything
            raise _no_scheduler(address, error) from error
    if not kind.endswith("Scheduler"):
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


def _no_scheduler(address: str, error: Exception) -> PipelineError:
    certificates = ", or give the certificates that it trusts" if "tls://" in address else ""
    return PipelineError(
        f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
        f"'dask scheduler', and give the address that it prints{certificates}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 60 else f"{seconds:g} s"
