"""Windows: the parts of an utterance that go through a model at once, and batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Window:
    """A part of an utterance that goes through the model at once; a short utterance has one."""

    values: np.ndarray[Any, Any]
    """The input of the model, time last: (samples,) float32, (mels, steps) float32 or (tokens,)
    int64."""
    positions: int
    """How many frames the model returns."""
    kept: slice
    """Which of these frames are kept, because windows overlap."""

    @property
    def length(self) -> int:
        """The length of the input, in samples, steps or tokens."""
        return int(self.values.shape[-1])

    @property
    def frames(self) -> int:
        """How many frames are kept."""
        return int(self.kept.stop - self.kept.start)


@dataclass(frozen=True)
class WindowPosition:
    """A window, and the position of its frames in the features of its utterance."""

    window: Window
    """The window."""
    utterance: int
    """Number of the utterance in the inputs."""
    start: int
    """First frame of the window in the utterance."""


def cut(frames: int, size: int, overlap: int) -> list[tuple[int, slice]]:
    """Cut ``frames`` into windows of ``size`` frames that overlap by at least ``overlap`` frames.

    Returns:
        The first frame of each window, and the slice of the window's own frames that is kept. Each
        frame is kept once; the cuts are in the middle of the overlaps. The last window ends with
        the utterance.
    """
    if frames <= size:
        return [(0, slice(0, frames))]
    starts = [*range(0, frames - size, size - overlap), frames - size]
    cuts = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), frames]
    return [
        (start, slice(first - start, end - start))
        for start, (first, end) in zip(starts, pairwise(cuts), strict=True)
    ]


def in_batches(
    windows: Sequence[WindowPosition], max_positions: int, *, padded: bool
) -> Iterator[list[WindowPosition]]:
    """Divide windows into batches of at most ``max_positions`` frames, padding included.

    A longer window has a batch of its own. Unless batches are ``padded``, only windows of equal
    length share a batch. The longest windows come first, so that a lack of memory shows at once.
    """
    batch: list[WindowPosition] = []
    for item in sorted(windows, key=lambda item: -item.window.length):
        if batch:
            first = batch[0].window
            full = (len(batch) + 1) * first.positions > max_positions
            if full or (item.window.length != first.length and not padded):
                yield batch
                batch = []
        batch.append(item)
    if batch:
        yield batch


def stacked(
    windows: Sequence[Window], padding: int
) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    """Return windows as one array (batch, …, time), padded at the end, and their lengths."""
    lengths = tuple(window.length for window in windows)
    first = windows[0].values
    values = np.full((len(windows), *first.shape[:-1], max(lengths)), padding, dtype=first.dtype)
    for row, window in zip(values, windows, strict=True):
        row[..., : window.length] = window.values
    return values, lengths
