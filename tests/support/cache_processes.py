"""Processes of their own for tests of the cache: started, stopped, killed and kept from writing."""

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

PATIENCE = 300.0  # seconds, for what takes a moment on a machine at rest

Start = Callable[..., BaseProcess]


def exit_code(process: BaseProcess) -> int | None:
    process.join(PATIENCE)
    return process.exitcode


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def stop(process: BaseProcess) -> None:
    """Stop a process where it is, until it is told ``SIGCONT``."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: not process.is_alive() or state(process.pid) == "T")


def state(process: int | None) -> str:
    """What the system says of a process: ``T`` stands still, ``Z`` has ended."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


# Commands that meet a failing place ---------------------------------------------------------------


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


# A command in a namespace where it may mount what it likes, and nobody else sees it.
MOUNTING = ["unshare", "--map-root-user", "--mount"]
mounts = pytest.mark.skipif(
    not works(*MOUNTING, "mount", "-t", "tmpfs", "none", "/mnt"),
    reason="this system lets nobody mount anything",
)
# As root, a command that minds permissions nevertheless.
MINDING = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
permissions = pytest.mark.skipif(
    not works(*MINDING, "true"), reason="root cannot be kept from anything here"
)


def answers(script: str, *arguments: object, by: list[str]) -> list[Any]:
    """What a script prints that runs in a process of its own, line by line."""
    done = subprocess.run(
        [*by, sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_sentence(said: str, place: Path, *words: str) -> None:
    assert "\n" not in said
    assert str(place) in said
    for word in words:
        assert word in said


# What they do -------------------------------------------------------------------------------------


def hold(folder: Path, work: str) -> None:
    """Hold a lease for good."""
    with lease(LocalFolder(folder), work) as mine:
        assert mine
        time.sleep(2 * PATIENCE)


def take_turns(folder: Path, log: Path, who: str, times: int) -> None:
    """Note when a lease is held, and when not any more."""
    with log.open("ab", buffering=0) as notes:
        for _ in range(times):
            with lease(LocalFolder(folder), "job", PATIENCE) as mine:
                assert mine
                notes.write(f"+{who}\n".encode())
                time.sleep(0.001)
                notes.write(f"-{who}\n".encode())


def take_over(folder: Path, answers: Path, who: int, of: int, rounds: int) -> None:
    """Try to take each of several leases at the same time as others, and say if it came off."""

    def all_have(written: str) -> None:
        wait_for(lambda: len(list(answers.glob(written))) == of)

    for number in range(rounds):
        (answers / f"ready-{number}-{who}").touch()
        all_have(f"ready-{number}-*")
        with lease(LocalFolder(folder), f"job-{number}") as mine:
            (answers / f"{'got' if mine else 'not'}-{number}-{who}").touch()
            all_have(f"???-{number}-*")
