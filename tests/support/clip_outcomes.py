"""The expected outcome of a clip: its features, its number of frames, or a reason to fail."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RATE = 16_000


@dataclass(frozen=True)
class Heard:
    """It is extracted, and its features are those of ``wave``: (samples,) float32 at 16 kHz."""

    wave: Array


@dataclass(frozen=True)
class Lasts:
    """It is extracted, and has the frames of ``seconds``, plus or minus ``slack`` seconds.

    For lossy codecs, where only the decoder gives the exact samples.
    """

    seconds: float
    slack: float


@dataclass(frozen=True)
class Refused:
    """It is in quarantine for ``reason``; its detail contains ``message``."""

    reason: str
    message: str


Outcome = Heard | Lasts | Refused


def noise(seed: int, count: int = 4000, channels: int | None = None) -> Array:
    """Noise, (samples,) or (samples, channels) float64 within half of full scale."""
    shape = count if channels is None else (count, channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


def heard(samples: Array, rate: int = RATE) -> Heard:
    """Features of samples (samples,), or of the mean of their channels (samples, channels)."""
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    return Heard(resampled(samples.astype(np.float32), rate))


def resampled(wave: Array, rate: int) -> Array:
    """A wave (samples,) at 16 kHz, float32: the sum of sincs under a Hann window, in float64.

    Sample j is Σᵢ x[i] · c / rate · sinc(t) · cos²(π t / 12), t = c (i / rate − j / 16000), over
    the i with |t| < 6; c is 0.99 of the lower rate.
    """
    if rate == RATE:
        return wave
    c = 0.99 * min(rate, RATE)
    times = np.arange(len(wave)) / rate
    result = np.empty(-(-len(wave) * RATE // rate))
    for j in range(len(result)):
        first, last = np.searchsorted(times, (j / RATE - 6 / c, j / RATE + 6 / c))
        t = c * (times[first:last] - j / RATE)
        result[j] = wave[first:last] @ (np.sinc(t) * np.cos(np.pi * t / 12) ** 2) * c / rate
    return result.astype(np.float32)
