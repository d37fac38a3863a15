"""The expected outcome of a clip: its features, its number of frames, or a reason to fail."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchaudio.functional import resample

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
    wave = torch.from_numpy(samples.astype(np.float32))
    return Heard(resample(wave, rate, RATE).numpy())
