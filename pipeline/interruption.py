"""Ctrl-C, SIGTERM and SIGHUP: each ends a command as an exception, then as the signal itself.

SLURM sends SIGTERM at the walltime, and a closed terminal sends SIGHUP. The exception lets a
command return its leases, publish finished shards and cancel its jobs. Afterwards the process ends
by the signal, because bash leaves a loop only then; the shell's exit code is 128 plus the number.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEFT_ALONE = (signal.SIG_IGN, None)  # ignored, or handled by another library in C
_CLEANUP_SECONDS = 10.0


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        cause = "interrupted" if self.number == signal.SIGINT else f"ended by {self.signal_name}"
        return f"{cause}: finished work is kept, and the same command continues from there"

    @property
    def signal_name(self) -> str:
        """The name of the signal, such as ``SIGTERM``."""
        return signal.Signals(self.number).name


_interruption: tuple[int, float] | None = None
"""The number of the first signal, and when it came."""


def interrupted() -> bool:
    """Whether a signal has asked this process to end; then wait for nothing that takes long."""
    return _interruption is not None


def interrupted_by() -> int | None:
    """Return the number of the signal that has asked this process to end, if one has."""
    return _interruption[0] if _interruption else None


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise :class:`Interrupted` in the main thread at the first of the three signals.

    Later signals are ignored, so that the work that ends a command is done; ten seconds after the
    first one they end the process at once. A signal that the process ignores, as SIGHUP under
    ``nohup``, stays ignored. Outside the main thread the context changes nothing.
    """
    global _interruption  # noqa: PLW0603 -- a process has one state of its signals
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler not in _LEFT_ALONE}
    _interruption = None
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interruption = None


def end_by(number: int) -> NoReturn:
    """End the process by a signal, without waiting for threads that still work."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed terminal
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    sys.exit(128 + number)  # the signal is blocked


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interruption  # noqa: PLW0603
    if _interruption is None:
        _interruption = number, time.monotonic()
        raise Interrupted(number)
    if time.monotonic() - _interruption[1] > _CLEANUP_SECONDS:
        end_by(number)
