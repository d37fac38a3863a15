"""Which frames of a video are encoded, and which part of each frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from ..errors import UsageError

FPS = 5.0
"""Frames a second that are taken by default."""
WHOLE_FRAME = "none"
"""The choice of faces that takes frames as they are."""
NO_FACE = ("frame", "quarantine")
"""What happens to an utterance in which no face is found."""


@dataclass(frozen=True)
class FaceChoice:
    """Which part of a frame is encoded: the whole frame, or a face."""

    by: str = WHOLE_FRAME
    """``none`` (the whole frame), ``folder`` (crops made elsewhere) or the name of a detector."""
    place: str | None = None
    """The folder of the crops, or the file of the detector's weights on this machine."""
    facts: tuple[tuple[str, Any], ...] = ()
    """What else changes the crop, such as the version and the hash of the detector's weights."""
    absent: str = "frame"
    """If no face is found: ``frame`` takes whole frames, ``quarantine`` gives the utterance up."""

    def __post_init__(self) -> None:
        if self.absent not in NO_FACE:
            raise UsageError(f"no face '{self.absent}': give {' or '.join(NO_FACE)}")

    @property
    def detects(self) -> bool:
        """Whether a detector looks for faces."""
        return self.by not in (WHOLE_FRAME, "folder")

    @property
    def option(self) -> str:
        """The value of ``--faces`` for other videos; those of crops are crops themselves."""
        return self.place if self.detects and self.place else WHOLE_FRAME

    def as_json(self) -> dict[str, Any]:
        """Return what changes the pictures, as JSON values."""
        if not self.detects:
            return {"by": self.by}
        return {"by": self.by, **dict(self.facts), "no face": self.absent}


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are encoded.

    With a fixed rate, the frames are those that the video shows at its begin and every ``1 / fps``
    seconds after it. With a ``number``, the video is divided into so many parts of equal length,
    and the frames are those that it shows in the middle of each part. The times are those of the
    video's own timestamps, so a variable frame rate changes nothing.
    """

    fps: float = FPS
    """Frames a second; not used with ``number``."""
    number: int | None = None
    """How many frames an utterance has; ``None`` for a fixed rate."""
    faces: FaceChoice = FaceChoice()

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise UsageError(f"fps {self.fps:g}: give frames a second, such as {FPS:g}")
        if self.number is not None and self.number < 1:
            raise UsageError(f"video frames {self.number}: give 1 or more")

    def expected(self, seconds: float) -> int:
        """Return how many frames a video of so many seconds gives, at least 1."""
        return self.number or max(1, ceil(seconds * self.fps - 1e-6))

    def instants(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        """Return the times of the frames of a video from ``begin`` to ``end``, in seconds."""
        length = end - begin
        if self.number is not None:
            return [begin + length * (2 * i + 1) / (2 * self.number) for i in range(self.number)]
        step = 1 / Fraction(self.fps).limit_denominator(1_000_000)
        return [begin + i * step for i in range(ceil(length / step))] or [begin]

    def identity(self) -> dict[str, Any]:
        """Return the choice as JSON values; part of the identity of all features of vision."""
        taken = {"fps": float(self.fps)} if self.number is None else {"number": self.number}
        return {"frames": taken, "faces": self.faces.as_json()}


DEFAULT_FRAMES = FrameChoice()
"""Five whole frames a second."""


def recorded_choice(identity: Mapping[str, Any]) -> FrameChoice:
    """Return the choice of frames that an identity records; the default if it records none."""
    taken = identity.get("frames")
    if not isinstance(taken, Mapping) or not set(taken) <= {"fps", "number"}:
        return DEFAULT_FRAMES  # the features are of another modality
    return FrameChoice(**taken)
