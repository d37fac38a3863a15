"""What the trainings of a command do at the moment, for a person who waits for them."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..evaluation.scorers import rank
from ..plugins import short_name
from ..progress import StatusBar, duration
from .jobs import TrainingJob

_SECONDS = 1.0  # between two looks at the logs of trainings in other processes
_HERE = 0.2  # the same, in this process


@dataclass
class _Training:
    """One training: its log so far, and how many of the epochs were logged before the command."""

    job: TrainingJob
    lines: list[dict[str, Any]] = field(default_factory=list)
    before: int = 0
    size: int = -1
    done: bool = False

    @property
    def log(self) -> Path:
        return self.job.run / "trainings" / f"{self.job.name}.jsonl"

    def read(self) -> bool:
        """Read the log if it has changed, and return whether it has."""
        try:
            size = self.log.stat().st_size
            if size == self.size:
                return False
            content = self.log.read_text(encoding="utf-8")
        except OSError:  # not begun, or finished by another process
            return False
        lines = []
        for line in content.splitlines(keepends=True):
            if line.endswith("\n"):  # else it is being written
                with suppress(ValueError):
                    lines.append(json.loads(line))
        self.size, self.lines = size, lines
        self.before = min(self.before, len(lines))  # epochs after a saved state are trained again
        return True

    @property
    def best(self) -> tuple[float, int]:
        """The best score on validation, and its epoch."""
        scores = [self.score(line) for line in self.lines]
        best = max(scores, key=partial(rank, self.job.settings.monitor))  # the first of equal ones
        return best, scores.index(best) + 1

    def score(self, line: dict[str, Any]) -> float:
        """Return the score on validation that chooses the epoch."""
        return float(line["validation"][self.job.settings.monitor])

    def expected(self, usual: float | None) -> float | None:
        """Return how many epochs the training will have; ``None`` if nothing tells."""
        if self.done:
            return len(self.lines)
        if usual is not None:
            return max(usual, len(self.lines) + 1)
        if not self.lines:
            return None
        settings = self.job.settings
        return min(settings.epochs, self.best[1] + settings.patience)

    @property
    def now(self) -> str:
        """The newest epoch, and the best one."""
        line, (score, _) = self.lines[-1], self.best
        monitor = short_name(self.job.settings.monitor)
        loss = line.get("train", line["validation"]).get("loss")
        text = "" if loss is None else f"loss {loss:.3f}, "
        text += f"{monitor} {self.score(line):.3f}, best {score:.3f}"
        return f"{self.job.fold} seed {self.job.seed} epoch {len(self.lines)}: {text}"

    @property
    def summary(self) -> str:
        """The best epoch of a finished training."""
        score, epoch = self.best
        monitor = short_name(self.job.settings.monitor)
        return (
            f"fold {self.job.fold}, seed {self.job.seed}: {monitor} {score:.3f} on validation in "
            f"epoch {epoch} of {len(self.lines)}"
        )


class ShownTrainings:
    """Shows the trainings of a command, in whatever process they run: it reads their logs.

    The time left follows from the number of epochs that the finished trainings had. Before the
    first is finished, a training is assumed to stop if its score does not rise any more.

    Args:
        jobs: the trainings, also those that are done.
        bar: where they are shown.
        clock: gives the time in seconds; its start does not matter.
    """

    def __init__(
        self,
        jobs: Sequence[TrainingJob],
        bar: StatusBar,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar, self._clock, self._lock = bar, clock, threading.Lock()
        self._trainings = {(job.run, job.name): _Training(job) for job in jobs}
        self._looked = self._started = clock()
        self._measured, self._now = False, ""
        for training in self._trainings.values():
            training.read()
            training.before, training.done = len(training.lines), training.job.done

    def look(self, pause: float = _HERE) -> None:
        """Read the logs and show what is new, unless the last look was within ``pause`` seconds."""
        if self._clock() - self._looked >= pause:
            with self._lock:
                self._look()

    def finished(self, job: TrainingJob) -> None:
        """Count a training as done, and print its best epoch."""
        with self._lock:
            training = self._trainings[job.run, job.name]
            training.read()
            training.done = True
            if training.lines:
                self._bar.keep(training.summary)
            self._look()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look every second, on a thread."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SECONDS):
                self.look(0.0)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all trainings are done; ``None`` before the first epoch is over."""
        trainings = self._trainings.values()
        here = sum(len(training.lines) - training.before for training in trainings)
        seconds = self._clock() - self._started
        counts = [len(training.lines) for training in trainings if training.done]
        usual = sum(counts) / len(counts) if counts else None
        expected = [training.expected(usual) for training in trainings]
        known = [count for count in expected if count is not None]
        if not here or not known or seconds <= 0:
            return None
        mean = sum(known) / len(known)
        epochs = sum(mean if count is None else count for count in expected)
        return (epochs - sum(len(training.lines) for training in trainings)) * seconds / here

    def _look(self) -> None:
        self._looked = self._clock()
        waiting = [training for training in self._trainings.values() if not training.done]
        changed = [training for training in waiting if training.read() and training.lines]
        first = [line for training in changed for line in training.lines[training.before :]]
        if first and not self._measured:  # without the time in which features were loaded
            self._measured = True
            own = sum(line.get("seconds", 0.0) for line in first)
            self._started = max(self._started, self._looked - own)
        done, left = len(self._trainings) - len(waiting), self.seconds_left
        text = "" if left is None else f"{duration(left)} left, "
        text += f"{done} of {len(self._trainings)} done"
        if changed:
            self._now = changed[-1].now
        self._bar.show(self._share(left), text + (f", {self._now}" if self._now else ""))

    def _share(self, left: float | None) -> float:
        seconds = self._clock() - self._started
        return 0.0 if left is None or not seconds + left else seconds / (seconds + left)
