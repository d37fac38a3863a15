"""A process that has imported all libraries, and forks a process for each test that needs one.

A fork has its own process id, environment, folder and session, and ends as Python ends, so that a
test can kill or interrupt it. Only the imports are done before. A test of what is imported, or of a
variable that a library reads when it is imported, starts Python itself.
"""

import atexit
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from types import ModuleType
from typing import Self, TextIO

import pytest

from mser.tests.support.quick_workers import stand_by

# What commands import, at the latest when they work.
MODULES = (
    *("mser.cli", "mser.pipeline.extract.runner", "mser.pipeline.extract.worker"),
    *("mser.pipeline.train.runner", "mser.pipeline.encoders.speech", "mser.heads.registry"),
    *("distributed.nanny", "distributed.cli.dask_scheduler", "distributed.cli.dask_worker"),
    *("huggingface_hub.errors", "huggingface_hub.utils.tqdm", "huggingface_hub._snapshot_download"),
    *("transformers.models.auto.feature_extraction_auto", "transformers.models.auto.modeling_auto"),
    *("transformers.models.auto.tokenization_auto", "transformers.models.bert.modeling_bert"),
    *("transformers.models.wav2vec2.modeling_wav2vec2", "transformers.modeling_layers"),
    *("mser.pipeline.compute.local_cluster", "sklearn.metrics", "sklearn.model_selection"),
    "scipy.optimize",
)
ASKED: list[str] = []
"""The functions of ``torch.cuda`` that these modules called when they were imported."""
MSER = "import sys; from mser.cli import main; sys.exit(main())"


class Fork:
    """A process that a server forked, with the methods of ``subprocess.Popen`` that tests use.

    Standard output and standard error are text.
    """

    def __init__(self, server: "ForkServer", pid: int, out: TextIO, err: TextIO) -> None:
        self.pid, self.stdout, self.stderr = pid, out, err
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a fork", timeout or 600)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        with ThreadPoolExecutor(2) as threads:
            reading = [threads.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                out, err = (reader.result(timeout or 600) for reader in reading)
            except TimeoutError:
                self.kill()
                raise
        self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()
        self.stderr.close()


class ForkServer:
    """Starts with the environment of this process and ends with it."""

    def __init__(self, **environment: str) -> None:
        self._connection, theirs = Pipe()
        self._asking = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def ask(self, what: str, *more: object) -> int | None:
        with self._asking:
            self._connection.send((what, *more))
            answer: int | None = self._connection.recv()
        return answer

    def fork(
        self,
        code: str,
        *arguments: object,
        streams: Sequence[int],
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        session: bool = False,
        workers: bool = False,
    ) -> int:
        """Run Python code in a fork, and return its process id.

        Args:
            code: what the fork runs.
            arguments: those of the command line.
            streams: file descriptors of standard output and standard error, and others, which the
                code knows as ``descriptors``.
            folder: where the fork runs; by default the folder of this process.
            environment: of the fork; by default that of this process.
            session: whether the fork leads a session of its own.
            workers: whether the fork starts Dask workers, which then start quickly.
        """
        request = (
            ["mser", *map(str, arguments)],
            str(folder or Path.cwd()),
            dict(os.environ if environment is None else environment),
            session,
            workers,
        )
        with self._asking:
            self._connection.send(("start", len(streams), code, *request))
            for stream in streams:
                send_handle(self._connection, stream, self._server.pid)
            pid: int = self._connection.recv()
        return pid

    def start(self, code: str, *arguments: object, quiet: bool = False, **options: object) -> Fork:
        """Run Python code in a fork; ``quiet`` discards what the fork prints."""
        pipes = [os.pipe(), os.pipe()]
        null = os.open(os.devnull, os.O_WRONLY)
        streams = [null if quiet else write for _, write in pipes]
        pid = self.fork(code, *arguments, streams=streams, **options)  # type: ignore[arg-type]
        for write in (null, *(write for _, write in pipes)):
            os.close(write)
        out, err = (open(read, encoding="utf-8") for read, _ in pipes)  # noqa: SIM115
        return Fork(self, pid, out, err)

    def run(
        self, code: str, *arguments: object, timeout: float = 300, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a fork, and wait until the fork has ended."""
        with self.start(code, *arguments, **options) as fork:  # type: ignore[arg-type]
            out, err = fork.communicate(timeout)
        return subprocess.CompletedProcess([code, *map(str, arguments)], fork.wait(), out, err)


@cache
def fork_server() -> ForkServer:
    """The server of all tests in this process."""
    return ForkServer(HF_HUB_OFFLINE="1")  # no test contacts the hub


# In the server ------------------------------------------------------------------------------------


def serve(connection: Connection) -> str | None:
    """Answer requests until the tests end; in a fork, return the code that it runs."""
    code: str
    while True:
        try:
            what, *more = connection.recv()
        except EOFError:
            return None
        if what == "poll":
            pid, status = os.waitpid(more[0], os.WNOHANG)
            connection.send(os.waitstatus_to_exitcode(status) if pid else None)
            continue
        count, code, *request, session, workers = more
        streams = [recv_handle(connection) for _ in range(count)]
        if os.fork():
            for stream in streams:
                os.close(stream)
            continue
        if session:
            os.setsid()
        become(streams, *request)
        if workers and (later := stand_by(connection)):
            code, *request = later
            become(*request)
            return code
        connection.send(os.getpid())  # only now, since a signal may come at once
        connection.close()
        return code


def become(streams: list[int], argv: list[str], folder: str, environment: dict[str, str]) -> None:
    """Take the streams, arguments, folder and environment of a process."""
    for number, stream in enumerate(streams[:2], start=1):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main)["descriptors"] = streams[2:]


def execute(code: str, statuses: list[int]) -> None:
    """Run the code of a fork, and note its exit status unless it ends by an error."""
    try:
        exec(code, vars(sys.modules["__main__"]))
        statuses.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            statuses.append(end.code or 0)
        raise


def leave(statuses: list[int]) -> None:
    """End without freeing the memory of all libraries, which takes longer than most commands."""
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


def import_all() -> None:
    """Import all modules, and note whether one of them asks for a GPU."""
    cuda, patch = importlib.import_module("torch.cuda"), pytest.MonkeyPatch()
    # The module that a fork imports; this one is ``__main__``.
    asked = importlib.import_module("mser.tests.support.fork_server").ASKED

    def ask(name: str, original: Callable[[], object]) -> object:
        asked.append(name)
        return original()

    for name in ("is_available", "device_count", "_lazy_init"):
        patch.setattr(cuda, name, partial(ask, name, getattr(cuda, name)))
    for name in MODULES:
        importlib.import_module(name)
    patch.undo()


def main() -> None:
    statuses: list[int] = []
    atexit.register(leave, statuses)  # the first to be registered runs last
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end the server
    import_all()
    assert threading.active_count() == 1, "a lock of another thread would stay locked in a fork"
    gc.collect()
    gc.freeze()  # forks share the memory of the libraries
    code = serve(Connection(int(sys.argv[1])))
    if code is not None:
        execute(code, statuses)


if __name__ == "__main__":
    main()
