"""How a worker ends: its leases are returned, so that another process continues at once."""

import asyncio
import os
import signal
import threading
from types import FrameType

from distributed import Worker, WorkerPlugin

from ...cache.storage.leases import return_leases

_WAIT_SECONDS = 60.0
_adding = threading.Lock()


def return_leases_at_the_end(worker: Worker) -> None:
    """Let this worker return its leases when it is closed, and at SIGTERM or SIGHUP.

    Called on a thread of a job. SLURM sends SIGTERM at the walltime, and a process that is killed
    by it would keep its leases for minutes, if the next one runs on another machine.
    """
    # Dask replaces a plug-in of the same name, and ends the older one as if the worker closed.
    with _adding:
        if _ReturnLeases.name in worker.plugins:
            return
        added = worker.plugin_add(_ReturnLeases(), name=_ReturnLeases.name)
        loop = worker.loop.asyncio_loop  # type: ignore[attr-defined]  # its type is too general
        asyncio.run_coroutine_threadsafe(added, loop).result(_WAIT_SECONDS)


class _ReturnLeases(WorkerPlugin):
    name = "mser-return-leases"

    def setup(self, worker: Worker) -> None:
        # Else the worker is a thread of another program.
        self.has_process = threading.current_thread() is threading.main_thread()
        if self.has_process:
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, _end)

    def teardown(self, worker: Worker) -> None:
        return_leases(refuse=self.has_process)


def _end(number: int, frame: FrameType | None) -> None:
    return_leases(refuse=True)
    os._exit(128 + number)
