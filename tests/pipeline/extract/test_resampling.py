"""Resampling by its formula, and with the bits of torchaudio, in which older caches were made."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from mser.pipeline.encoders.log_mel import LogMel
from mser.pipeline.extract.resampling import resampled

RATE = 16_000
# Without a common divisor with 16,000, so its filter has a row for each of them.
UNUSUAL = pytest.param(15_999, marks=pytest.mark.exhaustive)
RATES = (8000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, UNUSUAL)


def noise(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count)


def by_the_formula(wave: Any, rate: int) -> Any:
    """A wave (samples,) at 16 kHz, float32: the sum of sincs under a Hann window, in float64.

    Sample j is Σᵢ x[i] · c / rate · sinc(t) · cos²(π t / 12), t = c (i / rate − j / 16000), over
    the i with |t| < 6; c is 0.99 of the lower rate.
    """
    c = 0.99 * min(rate, RATE)
    times = np.arange(len(wave)) / rate
    result = np.empty(-(-len(wave) * RATE // rate))
    for j in range(len(result)):
        first, last = np.searchsorted(times, (j / RATE - 6 / c, j / RATE + 6 / c))
        t = c * (times[first:last] - j / RATE)
        result[j] = wave[first:last] @ (np.sinc(t) * np.cos(np.pi * t / 12) ** 2) * c / rate
    return result.astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_a_sample_is_the_sum_of_windowed_sincs(rate: int) -> None:
    wave = noise(0, 901).astype(np.float32)
    found = resampled(torch.from_numpy(wave), rate, RATE).numpy()
    assert found.shape == (math.ceil(901 * RATE / rate),)
    np.testing.assert_allclose(
        found, by_the_formula(wave, rate), atol=2e-4 if rate < RATE else 2e-5
    )


@pytest.mark.parametrize("rate", RATES)
def test_the_bits_are_those_of_torchaudio(rate: int) -> None:
    functional = _torchaudio()
    wave = torch.from_numpy(noise(1, 777).astype(np.float32))
    expected = functional.resample(wave, rate, RATE)
    assert torch.equal(resampled(wave, rate, RATE), expected)


@pytest.mark.parametrize("options", [{}, {"n_mels": 23, "f_min": 0.0}, {"frame_ms": 20.0}])
def test_the_filter_bank_has_the_bits_of_torchaudio(options: dict[str, float]) -> None:
    functional, extractor = _torchaudio(), LogMel(**options)  # type: ignore[arg-type]
    f_min, bins = options.get("f_min", 20.0), extractor.n_fft // 2 + 1
    expected = functional.melscale_fbanks(bins, f_min, 8000.0, extractor.dim, RATE)
    assert torch.equal(extractor.bank, expected)


def _torchaudio():
    try:
        from torchaudio import functional  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchaudio does not fit this torch: {error}")
    return functional
