"""The face of the synthetic corpus: a drawing whose brows and mouth follow the emotion.

It shows no real person. The mouth opens with the loudness of the voice. The directions of the
movements are those that the Facial Action Coding System names for the emotions (lip corners up or
down, inner brows up, brows lowered); the sizes are invented.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Height and width of a frame."""
RATE = 5
"""Frames a second."""

Signal = NDArray[np.float64]

# Lip corners up, mouth wider, inner brows up, brows higher, eyes wider; 1 is a clear expression.
_TOWARD = {
    "angry": np.array([-0.3, -0.4, -1.0, -0.8, 0.5]),
    "happy": np.array([1.0, 0.7, 0.0, 0.3, -0.3]),
    "neutral": np.zeros(5),
    "sad": np.array([-0.9, -0.2, 1.0, -0.2, -0.6]),
}
_DEVIATION = 0.35  # of each of these, from utterance to utterance
_JITTER = 0.12  # from frame to frame
_GRAIN = 10.0  # of the pixels, of 255

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE / 2) - 1  # -1 to 1


@dataclass(frozen=True, slots=True)
class Looks:
    """What all faces of a speaker share."""

    width: float
    """Of the head; 1 is average."""
    shade: float
    """Brightness of the skin, 0 to 1."""
    brow: float
    """Thickness of the brows; 1 is average."""
    smile: float
    """Lip corners of the face at rest."""


def draw_looks(rng: np.random.Generator) -> Looks:
    """Draw the face of a speaker."""
    a, b, c, d = rng.uniform(-1, 1, 4).tolist()
    return Looks(1 + 0.12 * a, 0.65 + 0.2 * b, 1 + 0.3 * c, 0.15 * d)


def film(
    emotion: str, strength: float, looks: Looks, wave: NDArray[np.int16], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw the face of an utterance, (frames, ``SIZE``, ``SIZE``, 3) uint8.

    Args:
        emotion: the emotion.
        strength: 0 is a neutral face, 1 a typical one.
        looks: the speaker's face.
        wave: (samples,) at 16 kHz, which opens the mouth.
        rng: draws all variation.
    """
    frames = max(1, round(len(wave) / 16_000 * RATE))
    parts = np.array_split(wave.astype(np.float64), frames)
    loudness = np.sqrt(np.array([np.mean(part**2) for part in parts])) / 4000
    typical = strength * _TOWARD[emotion] + _DEVIATION * rng.standard_normal(5)
    moves = typical + _JITTER * rng.standard_normal((frames, 5))
    sway = 0.05 * rng.standard_normal((frames, 2)).cumsum(axis=0) / np.sqrt(frames)
    pictures = np.stack(
        [
            _face(looks, move, min(loud, 1.0), shift)
            for move, loud, shift in zip(moves, loudness.tolist(), sway, strict=True)
        ]
    )
    pictures += _GRAIN * rng.standard_normal(pictures.shape, dtype=np.float32)
    colours = pictures[..., None] * np.array([1.0, 0.85, 0.75], dtype=np.float32)
    return np.clip(colours, 0, 255).astype(np.uint8)


def _face(looks: Looks, move: Signal, loud: float, shift: Signal) -> NDArray[np.float32]:
    """Return a picture (``SIZE``, ``SIZE``) from 0 to 255."""
    corners, wide, inner, high, eyes = np.clip(move, -2, 2).tolist()
    x, y = _X - np.float32(shift[0]), _Y - np.float32(shift[1])
    grey = np.full((SIZE, SIZE), 40, dtype=np.float32)
    grey[(x / (0.75 * looks.width)) ** 2 + (y / 0.92) ** 2 < 1] = 255 * looks.shade
    for side in (-1, 1):
        u = side * x - 0.32  # from the middle of this eye, outwards
        grey[(u / 0.13) ** 2 + ((y + 0.2) / (0.07 * (1 + 0.4 * eyes))) ** 2 < 1] = 20
        brow = y + 0.42 + 0.07 * high + 0.35 * inner * (0.1 - u) * (np.abs(u) < 0.2)
        grey[(np.abs(brow) < 0.035 * looks.brow) & (np.abs(u) < 0.2)] = 30
    half = 0.28 * (1 + 0.25 * wide)
    curve = y - 0.48 + 0.16 * (corners + looks.smile) * ((x / half) ** 2 - 0.5)
    grey[(np.abs(curve) < 0.03 + 0.1 * loud * (1 - (x / half) ** 2)) & (np.abs(x) < half)] = 60
    return grey


def save(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Write pictures as Motion JPEG; the same pictures give the same bytes."""
    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as file:
        stream: Any = file.add_stream("mjpeg", rate=RATE, options={"flags": "+bitexact"})
        stream.thread_count = 1  # starting others takes longer than the work
        stream.height = stream.width = SIZE
        stream.pix_fmt = "yuvj420p"
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
