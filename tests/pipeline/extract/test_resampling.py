"""Resampling by its formula, and with the bits of torchaudio, in which older caches were made."""

import math

import numpy as np
import pytest
import torch

from mser.pipeline.encoders.log_mel import LogMel
from mser.pipeline.extract.resampling import resampled
from mser.tests.support.clip_outcomes import noise
from mser.tests.support.clip_outcomes import resampled as by_the_formula

RATES = (8000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, 15_999)


@pytest.mark.parametrize("rate", RATES)
def test_a_sample_is_the_sum_of_windowed_sincs(rate: int) -> None:
    wave = noise(0, 901).astype(np.float32)
    found = resampled(torch.from_numpy(wave), rate, 16_000).numpy()
    assert found.shape == (math.ceil(901 * 16_000 / rate),)
    np.testing.assert_allclose(
        found, by_the_formula(wave, rate), atol=2e-4 if rate < 16_000 else 2e-5
    )


@pytest.mark.parametrize("rate", RATES)
def test_the_bits_are_those_of_torchaudio(rate: int) -> None:
    functional = _torchaudio()
    wave = torch.from_numpy(noise(1, 777).astype(np.float32))
    expected = functional.resample(wave, rate, 16_000)
    assert torch.equal(resampled(wave, rate, 16_000), expected)


@pytest.mark.parametrize("options", [{}, {"n_mels": 23, "f_min": 0.0}, {"frame_ms": 20.0}])
def test_the_filter_bank_has_the_bits_of_torchaudio(options: dict[str, float]) -> None:
    functional, extractor = _torchaudio(), LogMel(**options)  # type: ignore[arg-type]
    f_min, bins = options.get("f_min", 20.0), extractor.n_fft // 2 + 1
    expected = functional.melscale_fbanks(bins, f_min, 8000.0, extractor.dim, 16_000)
    assert torch.equal(extractor.bank, expected)


def _torchaudio():
    try:
        from torchaudio import functional  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchaudio does not fit this torch: {error}")
    return functional
