"""``log-mel``: the logarithm of a mel filter bank, without weights."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .feature_extractor import FeatureExtractor
from .speech import SAMPLE_RATE, Wave

_FLOOR = 1e-10  # of the energy in a band: -100 dB


class LogMel(FeatureExtractor):
    """Log energies in mel bands of overlapping frames, (frames, n_mels).

    A frame is multiplied by a Hann window; the energy of a band is the sum of the power spectrum
    under a triangle. The triangles are spaced evenly in mel(f) = 2595 log10(1 + f / 700), as in HTK
    (Young et al., The HTK Book, section 5.4). The logarithm is natural. Frames, window, floor and
    defaults are an interpretation: 25 ms every 10 ms, as in Kaldi, without dither and pre-emphasis.

    Args:
        n_mels: the number of bands.
        frame_ms: length of a frame in milliseconds.
        hop_ms: milliseconds from one frame to the next.
        f_min: the lowest frequency of the first band in Hz.
        f_max: the highest frequency of the last band in Hz.

    Raises:
        ValueError: a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        n_mels: int = 80,
        frame_ms: float = 25.0,
        hop_ms: float = 10.0,
        f_min: float = 20.0,
        f_max: float = 8000.0,
    ) -> None:
        self.dim = n_mels
        self.window = round(frame_ms * SAMPLE_RATE / 1000)
        self.hop = round(hop_ms * SAMPLE_RATE / 1000)
        if n_mels < 1 or self.window < 2 or self.hop < 1:
            raise ValueError(
                f"log-mel with n_mels={n_mels}, frame_ms={frame_ms:g}, hop_ms={hop_ms:g}: give "
                "positive values, such as 80, 25 and 10"
            )
        if not 0 <= f_min < f_max <= SAMPLE_RATE / 2:
            raise ValueError(
                f"log-mel from {f_min:g} to {f_max:g} Hz: give frequencies between 0 and "
                f"{SAMPLE_RATE // 2}"
            )
        self.frame_seconds = self.hop / SAMPLE_RATE
        self.n_fft = 1 << (self.window - 1).bit_length()
        self.bank = _mel_bank(self.n_fft // 2 + 1, f_min, f_max, n_mels)

    def facts(self) -> Mapping[str, Any]:
        """Return the version of these numbers."""
        return {"version": 1}

    def extract(self, utterance: Wave) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Return the log energies (frames, n_mels) of a wave (samples,); whole frames only."""
        if len(utterance) < self.window:
            return np.empty((0, self.dim), np.float32)
        wave = torch.from_numpy(np.ascontiguousarray(utterance, np.float32))
        frames = wave.unfold(0, self.window, self.hop) * torch.hann_window(self.window)
        power = torch.fft.rfft(frames, self.n_fft).abs().square()
        result: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
            (power @ self.bank).clamp(min=_FLOOR).log().numpy()
        )
        return result


def _mel_bank(bins: int, f_min: float, f_max: float, n_mels: int) -> Tensor:
    """Return the weights (bins, n_mels) float32 of the triangles, each with a peak of one.

    ``bins`` frequencies lie evenly between 0 and half of the sample rate.
    """
    frequencies = torch.linspace(0, SAMPLE_RATE // 2, bins)
    low, high = (2595.0 * math.log10(1.0 + frequency / 700.0) for frequency in (f_min, f_max))
    edges = 700.0 * (10.0 ** (torch.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)
    widths, distances = edges.diff(), edges[None] - frequencies[:, None]
    rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)
