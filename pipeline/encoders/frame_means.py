"""Means over frames, for caches that are smaller than those of all frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError

ALL, MEAN = "all", "mean"


@dataclass(frozen=True)
class FrameMeans:
    """How many frames of an encoder are stored as one, their mean.

    The text is ``all`` (every frame is stored), ``mean`` (one vector for each utterance), or a
    number N: each stored frame is the mean of N consecutive frames, the last one perhaps of fewer.

    Raises:
        UsageError: the text is none of these.
    """

    text: str = ALL

    def __post_init__(self) -> None:
        """Validate the text."""
        if self.text not in (ALL, MEAN) and not (self.text.isdecimal() and int(self.text) > 1):
            raise UsageError(
                f"frames '{self.text}': give all, mean (one vector for each utterance), or a "
                "number from 2 on (means of so many frames)"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What changes the features, as JSON values; empty if every frame is stored."""
        return {} if self.text == ALL else {"frame_means": self.text}

    def count(self, frames: int) -> int:
        """Return how many frames are stored of so many."""
        if self.text == ALL:
            return frames
        return min(frames, 1) if self.text == MEAN else -(-frames // int(self.text))

    def of(self, states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the means over the frames of (layers, frames, dim) float32, of the same dtype."""
        frames = states.shape[1]
        if self.text == ALL or not frames:
            return states
        size = frames if self.text == MEAN else int(self.text)
        starts = np.arange(0, frames, size)
        lengths = np.minimum(starts + size, frames) - starts
        sums = np.add.reduceat(states, starts, axis=1, dtype=np.float64)
        means: np.ndarray[Any, Any] = (sums / lengths[:, None]).astype(states.dtype)
        return means


ALL_FRAMES = FrameMeans()
"""Every frame is stored."""


def means_of(identity: Mapping[str, Any]) -> FrameMeans:
    """Return the means that the identity of an entry records."""
    return FrameMeans(str(identity.get("frame_means", ALL)))
