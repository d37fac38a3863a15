"""What goes through a model at once: an utterance, or one of the windows of a long one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Window:
    """A part of an utterance that goes through the model at once.

    ``values`` is what the model takes, with time last: (samples,) float32, (mels, steps) float32 or
    (tokens,) int64. ``positions`` is how many frames come out, ``kept`` which of them are the
    utterance's, where windows overlap.
    """

    values: np.ndarray[Any, Any]
    positions: int
    kept: slice

    @property
    def length(self) -> int:
        """How long it is before the model, in samples, steps or tokens."""
        return int(self.values.shape[-1])

    @property
    def frames(self) -> int:
        """How many frames of the utterance it gives."""
        return int(self.kept.stop - self.kept.start)


@dataclass(frozen=True)
class WindowPosition:
    """Where a window's frames belong: in which utterance, from which frame on."""

    window: Window
    utterance: int
    start: int


def cut(frames: int, size: int, overlap: int) -> list[tuple[int, slice]]:
    """Cut ``frames`` into windows of ``size`` that overlap by ``overlap`` at least.

    Returns:
        The first frame of each window, and which of the window's own frames are kept: the seams
        lie in the middle of the overlaps, and all frames are kept once. The last window ends with
        the utterance.
    """
    if frames <= size:
        return [(0, slice(0, frames))]
    starts = [*range(0, frames - size, size - overlap), frames - size]
    seams = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), frames]
    return [
        (start, slice(seam - start, following - start))
        for start, (seam, following) in zip(starts, pairwise(seams), strict=True)
    ]


def in_batches(
    places: Sequence[WindowPosition], positions: int, *, padded: bool
) -> Iterator[list[WindowPosition]]:
    """Divide windows into batches of at most ``positions`` frames, the padding counted.

    A longer window has a batch of its own. Unless they are ``padded``, only windows of equal length
    share a batch. The longest come first, so that memory that is short is short at once.
    """
    batch: list[WindowPosition] = []
    for place in sorted(places, key=lambda place: -place.window.length):
        if batch:
            first = batch[0].window
            full = (len(batch) + 1) * first.positions > positions
            if full or (place.window.length != first.length and not padded):
                yield batch
                batch = []
        batch.append(place)
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
