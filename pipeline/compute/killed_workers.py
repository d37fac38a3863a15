"""Worker processes killed by signal 9, as Linux does when the memory is full: noted and counted."""

import signal
import sys
from collections.abc import Callable

import cloudpickle
from distributed import Client, Nanny, NannyPlugin, Status

from ..errors import PipelineError
from ..progress import print_note

_TOPIC = "mser-killed-worker"
_MOST_BEFORE_A_RESULT = 30
"""More than a single utterance causes that kills its workers until it is alone in its shard."""


class KilledWorkers:
    """The killed worker processes of one command."""

    def __init__(self, advice: str) -> None:
        """Start to count; ``advice`` tells what to do, as a part of a sentence."""
        self.advice = advice
        self._count, self._has_result = 0, False

    def add(self) -> None:
        """Note that a worker process was killed, and print the advice."""
        self._count += 1
        print_note(
            "mser: a worker process was killed by signal 9, as Linux does when the memory is "
            f"full: if this comes again, {self.advice}"
        )

    def advanced(self) -> None:
        """Note that a job was finished: from now on, kills do not end the work."""
        self._has_result = True

    def check(self) -> None:
        """Check that the work is not hopeless.

        Raises:
            PipelineError: workers were killed again and again before any job was finished.
        """
        if self._count >= _MOST_BEFORE_A_RESULT and not self._has_result:
            raise PipelineError(
                f"{self._count} worker processes were killed by signal 9 before any work was "
                f"finished, as Linux does when the memory is full: {self.advice}, then run the "
                "same command again"
            )

    def watch(self, client: Client) -> None:
        """Count the worker processes that ``dask worker`` commands start from now on."""
        # By value: a nanny that imported this package would import torch, and need its memory.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        client.subscribe_topic(_TOPIC, lambda _: self.add())
        client.register_plugin(_ReportKilled())


def when_killed(nanny: Nanny, report: Callable[[], object]) -> Callable[[int], None]:
    """Return what a nanny does when its worker process exits, with a report of a kill before it."""
    go_on = nanny._on_worker_exit_sync

    def ended(exit_code: int) -> None:
        if exit_code == -signal.SIGKILL and nanny.status == Status.running:
            report()
        go_on(exit_code)  # type: ignore[no-untyped-call]

    return ended


class _ReportKilled(NannyPlugin):
    """Lets the nannies of other machines tell the scheduler."""

    name = "mser-report-killed"

    def setup(self, nanny: Nanny) -> None:
        nanny._on_worker_exit_sync = when_killed(  # type: ignore[method-assign]
            nanny,
            lambda: nanny.log_event(_TOPIC, nanny.name),
        )
