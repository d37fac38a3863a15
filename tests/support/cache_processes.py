"""For tests of the cache in several processes: start, suspend and kill them, and deny writing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from mser.cache.storage.leases import lease
from mser.cache.storage.local import LocalFolder

PATIENCE = 300.0  # seconds, for steps that are fast on an idle machine

Start = Callable[..., BaseProcess]


def exit_code(process: BaseProcess) -> int | None:
    process.join(PATIENCE)
    return process.exitcode


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.002)


def stop(process: BaseProcess) -> None:
    """Suspend a process until it gets ``SIGCONT``."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: not process.is_alive() or state(process.pid) == "T")


def state(process: int | None) -> str:
    """The state of a process: ``T`` is suspended, ``Z`` has ended."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


# Commands with failing storage --------------------------------------------------------------------


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


# Runs a command in a mount namespace of its own.
MOUNTING = ["unshare", "--map-root-user", "--mount"]
mounts = pytest.mark.skipif(
    not works(*MOUNTING, "mount", "-t", "tmpfs", "none", "/mnt"),
    reason="this system does not allow mounts",
)
# Runs a command as root without root's right to ignore permissions.
MINDING = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
# The same for the code of a fork: it gives up the right, which has the number 1, itself.
MINDING_FORK = """
import ctypes
header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None)
assert libc.capget(header, rights) == 0
rights[0] &= ~(1 << 1)
assert libc.capset(header, rights) == 0
"""
permissions = pytest.mark.skipif(
    not works(*MINDING, "true"), reason="root ignores permissions here"
)


def answers(script: str, *arguments: object, by: list[str]) -> list[Any]:
    """Run a script in a process of its own, and return the JSON values it prints, one per line."""
    done = subprocess.run(
        [*by, sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_sentence(message: str, path: Path, *words: str) -> None:
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message


# Functions for the processes ----------------------------------------------------------------------


def hold(folder: Path, work: str) -> None:
    """Hold a lease until the process is killed."""
    with lease(LocalFolder(folder), work) as acquired:
        assert acquired
        time.sleep(2 * PATIENCE)


def take_turns(folder: Path, log: Path, who: str, times: int) -> None:
    """Write to a log when the lease is acquired and when it is released."""
    with log.open("ab", buffering=0) as notes:
        for _ in range(times):
            with lease(LocalFolder(folder), "job", PATIENCE) as acquired:
                assert acquired
                notes.write(f"+{who}\n".encode())
                time.sleep(0.001)
                notes.write(f"-{who}\n".encode())


def take_over(folder: Path, answers: Path, who: int, of: int, rounds: int) -> None:
    """Try to acquire several leases at the same time as others, and write down the results."""

    def wait_for_all(pattern: str) -> None:
        wait_for(lambda: len(list(answers.glob(pattern))) == of)

    for number in range(rounds):
        (answers / f"ready-{number}-{who}").touch()
        wait_for_all(f"ready-{number}-*")
        with lease(LocalFolder(folder), f"job-{number}") as acquired:
            (answers / f"{'got' if acquired else 'not'}-{number}-{who}").touch()
            wait_for_all(f"???-{number}-*")
