"""The fork server of Dask workers, forked from a process that has all imports already.

``multiprocessing`` starts its fork server as a new Python process, which imports torch and
transformers for several seconds. Here the server is a fork of a process that has imported them. It
runs the same code in the same environment and folder, and ends in the same way.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence
from multiprocessing import Pipe, util
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mser.tests.support.fork_server import ForkServer

_NEW = r"from multiprocessing\.forkserver import main; main\(\d+, \d+, "
_FORKED = "from multiprocessing.forkserver import main; main(*descriptors[:2], "


def fork_servers_are_forks_of(server: "ForkServer", patch: pytest.MonkeyPatch) -> None:
    """Let ``server`` start the fork servers of this process, until ``patch`` is undone."""

    def start(code: str, descriptors: Sequence[int]) -> int:
        # A process can wait only for its own children: this child ends when the server ends.
        read, write = os.pipe()
        closing = "import os; os.register_at_fork(after_in_child=lambda: os.close(descriptors[2]))"
        server.fork(f"{closing}\n{code}", streams=(1, 2, *descriptors, write))
        os.close(write)
        actions = [(os.POSIX_SPAWN_DUP2, read, 0)]
        child = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=actions)
        os.close(read)
        return child

    _start_by(start, patch)


def stand_by(inherited: Connection) -> list[Any] | None:
    """Fork a process that becomes the fork server of this process when this process starts one.

    It is a child of this process, in the same session.

    Args:
        inherited: a connection that only this process uses.

    Returns:
        In the new process the code, streams, arguments, folder and environment of a fork server,
        as soon as this process starts one; in this process nothing.
    """
    ours, theirs = Pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        inherited.close()
        ours.close()
        try:
            code, count, *request = theirs.recv()
        except EOFError:  # the other process has ended
            os._exit(0)
        descriptors = [recv_handle(theirs) for _ in range(count)]
        return [code, [os.dup(1), os.dup(2), *descriptors], *request]

    def start(code: str, descriptors: Sequence[int]) -> int:
        patch.undo()  # the child becomes one server: the next one is a new process
        ours.send((code, len(descriptors), ["mser"], str(Path.cwd()), dict(os.environ)))
        for descriptor in descriptors:
            send_handle(ours, descriptor, child)
        return child

    theirs.close()
    patch = pytest.MonkeyPatch()
    _start_by(start, patch)
    return None


def _start_by(start: Callable[[str, Sequence[int]], int], patch: pytest.MonkeyPatch) -> None:
    """Let ``start`` start fork servers: it takes code and ``descriptors``, and returns a child."""
    new_process: Any = util.spawnv_passfds

    def spawn(path: object, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
        code, found = re.subn(_NEW, _FORKED, str(arguments[-1]))
        return start(code, descriptors) if found else new_process(path, arguments, descriptors)

    patch.setattr(util, "spawnv_passfds", spawn)
