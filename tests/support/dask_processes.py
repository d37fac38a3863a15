"""A Dask scheduler and its workers in processes of their own, as a user starts them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distributed import Client

from mser.tests.support.fork_server import Fork, fork_server

ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
COMMAND = "import sys; from distributed.cli.dask_{} import main; sys.exit(main())"


@contextmanager
def dask(command: str, *arguments: object) -> Iterator[Fork]:
    """Run ``dask scheduler`` or ``dask worker``; its whole session is killed at the end."""
    process = fork_server().start(
        COMMAND.format(command), *arguments, environment=ENVIRONMENT, session=True, quiet=True
    )
    with process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: Fork) -> None:
    """Kill a process and its children, as a failing node does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Started:
    """A scheduler with workers: ``address``, and the processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        file = folder / "scheduler.json"
        web = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
        self.scheduler = stack.enter_context(
            dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", file, *web)
        )
        wait_for(file.exists, self.scheduler)
        self.address: str = wait_for(lambda: _address(file), self.scheduler)
        self.workers: list[Fork] = []

    def add_workers(self, count: int) -> None:
        """Start workers of two threads, and wait until they are connected."""
        # A nanny would start the worker in a process of its own, and import all again.
        local = ("--no-nanny", "--host", "127.0.0.1", "--local-directory", self._folder)
        for _ in range(count):
            worker = dask("worker", self.address, "--nthreads", 2, *local)
            self.workers.append(self._stack.enter_context(worker))
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=120)


@contextmanager
def started(folder: Path, workers: int) -> Iterator[Started]:
    with ExitStack() as stack:
        cluster = Started(folder, stack)
        if workers:
            cluster.add_workers(workers)
        yield cluster


def wait_for(condition, process: Fork):
    """Wait until a condition holds while a process runs, and return its value."""
    for _ in range(60_000):
        if value := condition():
            return value
        assert process.poll() is None, "the process ended before anything happened"
        time.sleep(0.005)
    raise AssertionError("nothing happened")


def _address(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["address"])
    except ValueError:  # not complete yet
        return None
