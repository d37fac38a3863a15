"""w2v-BERT 2.0: the features of each utterance are those that it has alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import LAYERS, assert_same, direct_speech, noise


@pytest.fixture
def folder(folder_of):
    return folder_of("wav2vec2-bert")


def complete(samples: int) -> int:
    """The frames of two steps of 10 ms, each of a window of 25 ms, that are in a wave."""
    return len(range(400, samples + 1, 160)) // 2


def test_each_utterance_is_encoded_as_by_transformers(folder):
    encoder: Any = load_encoder(str(folder), device="cpu")
    waves = [noise(samples, samples) for samples in (560, 719, 720, 879, 880, 16_000, 16_160)]
    for wave, ours in zip(waves, encoder.encode(waves), strict=True):
        frames = complete(len(wave))
        assert ours.shape == (LAYERS, frames, 32) == (LAYERS, encoder.frames(wave), 32)
        # The feature extractor fills the last step up to a frame, and masks that frame.
        assert_same(ours, direct_speech(folder, wave)[:, :frames])
    assert [encoder.frames_of(samples) for samples in (0, 399, 400, 559, 560)] == [0, 0, 0, 0, 1]


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(lengths=st.lists(st.integers(560, 8000), min_size=2, max_size=5))
def test_utterances_in_padded_batches(folder_of, lengths):
    folder = folder_of("wav2vec2-bert")
    encoder: Any = load_encoder(str(folder), device="cpu")
    encoder.padded = encoder.exact_when_padded
    assert encoder.padded
    waves = [noise(length, number) for number, length in enumerate(lengths)]
    for wave, ours in zip(waves, encoder.encode(waves), strict=True):
        assert_same(ours, direct_speech(folder, wave)[:, : complete(len(wave))])


def test_a_long_utterance_is_normalised_as_a_whole(folder):
    whole: Any = load_encoder(str(folder), device="cpu")
    cut: Any = load_encoder(str(folder), device="cpu", max_seconds=4)
    wave = noise(6 * 16_000, 0) * np.linspace(0.1, 1, 6 * 16_000, dtype=np.float32)
    (one,), (windows,) = whole.encode([wave]), cut.encode([wave])
    assert one.shape == windows.shape == (LAYERS, cut.frames(wave), 32)
    assert_same(windows[0], one[0])  # the input of the first layer has no context
    assert not np.allclose(windows[-1], one[-1], atol=1e-6)
