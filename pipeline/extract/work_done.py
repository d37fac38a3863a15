"""How much of an extraction is done, and how long the rest will take."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..progress import duration, times
from .sharding import PlannedUtterance, ShardJob


@dataclass
class _Amount:
    """An amount of work: utterances, their frames, and the seconds of their audio."""

    utterances: int = 0
    frames: int = 0
    audio: float = 0.0

    def add(self, items: Iterable[PlannedUtterance]) -> None:
        for item in items:
            self.utterances += 1
            self.frames += item.frames
            self.audio += item.seconds


class WorkDone:
    """The work of each modality that is done, and its speed.

    The time between two reports counts for the modality of the later one. Work is measured in
    frames: a second of audio and a word need very different times, and a frame of two encoders of
    equal size about the same. A modality that has not begun is assumed to be as fast as the others;
    as soon as its own speed is known, this one counts.

    Args:
        jobs: all jobs of the extraction.
        clock: gives the time in seconds; its start does not matter.
    """

    def __init__(
        self, jobs: Sequence[ShardJob], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._last = clock()
        self._planned: dict[str, _Amount] = {}
        for job in jobs:
            self._planned.setdefault(modality_of(job), _Amount()).add(job.items)
        self._done = {modality: _Amount() for modality in self._planned}
        self._seconds = dict.fromkeys(self._planned, 0.0)

    def add(self, job: ShardJob) -> None:
        """Count a job as done."""
        now, modality = self._clock(), modality_of(job)
        self._done[modality].add(job.items)
        self._seconds[modality] += now - self._last
        self._last = now

    @property
    def share(self) -> float:
        """The part of the time that is over, 0 to 1."""
        over, left = sum(self._seconds.values()), self.seconds_left
        return 0.0 if left is None or not over + left else over / (over + left)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is done; ``None`` before the first job is done."""
        frames = sum(done.frames for done in self._done.values())
        seconds = sum(self._seconds.values())
        if not frames or not seconds:
            return None
        left = 0.0
        for modality, planned in self._planned.items():
            done, own = self._done[modality].frames, self._seconds[modality]
            speed = done / own if done and own else frames / seconds
            left += (planned.frames - done) / speed
        return left

    def __str__(self) -> str:
        """Return the time left, what is done of each modality, and the speed on audio."""
        left = self.seconds_left
        first = "first shards" if left is None else f"{duration(left)} left"
        return ", ".join([first, *map(self._of, self._planned)])

    def _of(self, modality: str) -> str:
        planned, done = self._planned[modality], self._done[modality]
        if not planned.audio:
            return f"{modality} {done.utterances} of {planned.utterances}"
        unit, size = ("h", 3600) if planned.audio >= 3600 else ("min", 60)
        text = f"{modality} {done.audio / size:.1f} of {planned.audio / size:.1f} {unit}"
        if seconds := self._seconds[modality]:
            text += f" ({times(done.audio / seconds)} x real time)"
        return text


def modality_of(job: ShardJob) -> str:
    """Return the modality of a job."""
    return job.writer.spec.modality
