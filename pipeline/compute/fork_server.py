"""How worker processes of this machine start: forked from a process that has all imports.

A new process imports torch and transformers for several seconds. A fork server imports them once
for all workers. The server computes nothing and has no CUDA, so that a fork is as good as a new
process; a fork of the main process would not be, because the main process has threads.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from threading import Thread
from typing import Any

_server: Any = forkserver._forkserver  # the standard library has one for each process
_stopping: list[Thread] = []  # wait for the end of the servers before
_STOP_SECONDS = 30.0


@contextmanager
def start_method(imports: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Prepare the start of worker processes, and yield multiprocessing's name of the method.

    On Linux this is ``forkserver``, with a new server, so that workers get the environment that
    this process has now. The server ends with the context, or when this process ends. Elsewhere,
    or if this process uses a fork server already, the method is ``spawn``.

    Args:
        imports: names of the modules that the server imports. A module that cannot be imported is
            left to the workers.
        environment: variables that worker processes have from their start, unless the user has
            set them.
    """
    while _stopping:
        _stopping.pop().join(_STOP_SECONDS)
    with _environment(environment):
        if sys.platform != "linux" or _server._forkserver_pid is not None:
            yield "spawn"
            return
        multiprocessing.set_forkserver_preload(list(imports))
        # In safe mode Python does not import modules from the folder in which the command runs.
        with _environment({"PYTHONSAFEPATH": "1"}):
            forkserver.ensure_running()
        try:
            yield "forkserver"
        finally:
            multiprocessing.set_forkserver_preload(["__main__"])  # the default
            # The server ends after its workers, and a worker may hang: do not wait here.
            _stopping.append(Thread(target=_server._stop, daemon=True))
            _stopping[-1].start()


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
