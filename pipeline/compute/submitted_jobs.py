"""The SLURM jobs of a command: those that end are submitted again while the work advances."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..errors import PipelineError
from ..progress import print_note

_CHECK_SECONDS = 10.0  # between two calls of squeue
_FRUITLESS_ROUNDS = 3
_WAITING_OR_RUNNING = {
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "STAGE_OUT"),
}
_MEMORY = "OUT_OF_MEMORY"
_ADVICE = {
    "TIMEOUT": "give a longer walltime, or smaller units of work (--shard-mib, save_every)",
    _MEMORY: "give more memory, or fewer processes",
}


class SubmittedJobs:
    """The jobs of one command."""

    def __init__(
        self, cluster: Any, submit: Callable[[], None], file: str, advance: Callable[[], object]
    ) -> None:
        """Watch the jobs of a cluster.

        Args:
            cluster: a ``SLURMCluster`` of dask-jobqueue.
            submit: submits the jobs that ``cluster.worker_spec`` lists and ``cluster.workers``
                does not.
            file: how errors name the SLURM file.
            advance: returns a value that changes while unfinished work advances.
        """
        self.ended = 0
        """How many jobs have ended before the command has."""
        self.cluster, self._submit, self._file = cluster, submit, file
        self._advance, self._seen = advance, advance()
        self._fruitless, self._checked = 0, time.monotonic()

    def advanced(self) -> None:
        """Note that something was finished."""
        self._fruitless = 0

    def keep_up(self) -> None:
        """Submit a job for each one that has ended, at most every ten seconds.

        Raises:
            PipelineError: many jobs in a row ended before the work advanced, or SLURM refuses one.
        """
        if time.monotonic() - self._checked > _CHECK_SECONDS:
            self.check()

    def check(self) -> None:
        """Submit a job for each one that has ended; see :meth:`keep_up`."""
        self._checked = time.monotonic()
        states = job_states([job.job_id for job in self.cluster.workers.values()])
        if states is None:
            return
        ended = {
            name: states.get(job.job_id, "ended")
            for name, job in self.cluster.workers.items()
            if states.get(job.job_id) not in _WAITING_OR_RUNNING
        }
        if not ended:
            return
        self.ended += len(ended)
        if (now := self._advance()) != self._seen:
            self._seen, self._fruitless = now, 0
        self._fruitless += len(ended)
        state = next(iter(ended.values()))
        if self._fruitless > _FRUITLESS_ROUNDS * len(self.cluster.workers):
            advice = _ADVICE.get(state, "check the logs of the jobs")
            raise PipelineError(
                f"{self._fruitless} SLURM jobs of {self._file} ended one after the other and the "
                f"work did not advance (the last one: {state}); finished work is kept: {advice}, "
                "then run the same command again"
            )
        for name, job_state in ended.items():
            job = self.cluster.workers[name].job_id
            again = f"; if this comes again, {_ADVICE[job_state]}" if job_state == _MEMORY else ""
            print_note(f"mser: SLURM job {job} ended ({job_state}): submitting another one{again}")
            # In this order: the new job must not get the name of the old one.
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())
            del self.cluster.worker_spec[name]
        self._submit()


def job_states(jobs: list[str]) -> Mapping[str, str] | None:
    """Return job → state, such as ``PENDING`` or ``TIMEOUT``, for the jobs that SLURM remembers.

    ``None`` if SLURM does not answer.
    """
    squeue = shutil.which("squeue")
    if squeue is None:
        return None
    options = ["--noheader", "--states=all", "--format=%i %T", f"--jobs={','.join(jobs)}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 -- the numbers of our own jobs
            [squeue, *options], capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode == 0 or "Invalid job id" in done.stderr:
            lines = (line.split() for line in done.stdout.splitlines())
            return {line[0]: line[1] for line in lines if len(line) == 2}
    return None
