"""How worker processes of this machine start: forked from a process that has all imports.

A new process imports torch and transformers for several seconds. A fork server imports them once
for all workers. The server computes nothing and has no CUDA, so that a fork is as good as a new
process; a fork of the main process would not be, because the main process has threads.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from threading import Thread
from typing import Any

_server: Any = forkserver._forkserver  # the standard library has one for each process
_stopping: list[Thread] = []  # wait for the end of the servers before
_early: list[int] = []  # the server of early_server that no worker has needed yet
_STOP_SECONDS = 30.0
_IMPORTS = ("distributed.nanny",)  # of every worker
# Environment variables with which glibc keeps the memory that a forward pass frees, for the next
# pass. With Dask's own values glibc returns it to the system at once, and a pass takes far longer.
MALLOC_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}


@contextmanager
def early_server(imports: Sequence[str]) -> Iterator[None]:
    """Start the fork server of :func:`start_method` now, while this process imports what it needs.

    Workers that start in the context are forked from this server. A server that no worker needed
    is killed at the end. Without fork servers this does nothing.

    Args:
        imports: those of :func:`start_method`.
    """
    if sys.platform != "linux" or _running() is not None:
        yield
        return
    with _environment(MALLOC_ENVIRONMENT):
        _start(imports)
    process = _running()
    assert process is not None  # noqa: S101 -- it was started
    _early.append(process)
    try:
        yield
    finally:
        if process in _early:
            _early.remove(process)
            multiprocessing.set_forkserver_preload(["__main__"])  # the default
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            _server._stop()


@contextmanager
def start_method(
    imports: Sequence[str], environment: Mapping[str, str] = MALLOC_ENVIRONMENT
) -> Iterator[str]:
    """Prepare the start of worker processes, and yield multiprocessing's name of the method.

    On Linux this is ``forkserver``, with the server of :func:`early_server`, or with a new one, so
    that workers get the environment that this process has now. The server ends with the context,
    or when this process ends. Elsewhere, or if this process uses a fork server for something else,
    the method is ``spawn``.

    Args:
        imports: names of the modules that the server imports. A module that cannot be imported is
            left to the workers.
        environment: variables that worker processes have from their start, unless the user has
            set them.
    """
    while _stopping:
        _stopping.pop().join(_STOP_SECONDS)
    with _environment(environment):
        process = _running()
        if process in _early:
            _early.remove(process)
        elif sys.platform != "linux" or process is not None:
            yield "spawn"
            return
        else:
            _start(imports)
        try:
            yield "forkserver"
        finally:
            multiprocessing.set_forkserver_preload(["__main__"])  # the default
            # The server ends after its workers, and a worker may hang: do not wait here.
            _stopping.append(Thread(target=_server._stop, daemon=True))
            _stopping[-1].start()


def _start(imports: Sequence[str]) -> None:
    first, last = f"{__package__}.before_imports", f"{__package__}.after_imports"
    multiprocessing.set_forkserver_preload([first, *_IMPORTS, *imports, last])
    # In safe mode Python does not import modules from the folder in which the command runs.
    with _environment({"PYTHONSAFEPATH": "1"}), _without_interrupts():
        forkserver.ensure_running()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let a process that starts ignore Ctrl-C, also before it has imported anything."""
    handled = signal.getsignal(signal.SIGINT) is not None  # not by another program around Python
    if not handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the environment does not have, and remove them at the end."""
    absent = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(absent)
    try:
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)


def _running() -> int | None:
    """Return the process of the server, if there is one."""
    process: int | None = _server._forkserver_pid
    return process
