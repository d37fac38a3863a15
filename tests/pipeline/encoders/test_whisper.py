"""Whisper's encoder: the frames of the utterance, out of thirty seconds of input."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperModel

from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import LAYERS, assert_same, noise


@cache
def model(folder):
    return WhisperModel.from_pretrained(folder).eval()


def direct(folder, wave):
    """Return the hidden states of all thirty seconds (layers, 1500, dim)."""
    inputs = WhisperFeatureExtractor.from_pretrained(folder)(
        wave, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        encoder = model(folder).get_encoder()
        states = encoder(inputs.input_features, output_hidden_states=True).hidden_states
    return torch.stack(states, dim=1)[0].numpy()


@pytest.fixture
def folder(folder_of):
    return folder_of("whisper")


def test_the_frames_of_each_utterance_are_those_it_has_alone(folder):
    encoder: Any = load_encoder(str(folder), device="cpu")
    waves = [noise(samples, samples) for samples in (1, 319, 320, 321, 16_000, 48_123)]
    for wave, ours in zip(waves, encoder.encode(waves), strict=True):
        frames = -(-len(wave) // 320)
        assert ours.shape == (LAYERS, frames, 32) == (LAYERS, encoder.frames(wave), 32)
        assert_same(ours, direct(folder, wave)[:, :frames])
    assert (encoder.modality, encoder.layers) == ("speech", (0, 1, 2))


def test_the_first_layer_is_the_transformer_input_and_the_last_is_normalised(folder):
    encoder: Any = load_encoder(str(folder), device="cpu")
    wave = noise(8000, 0)
    seen = []
    layers = model(folder).get_encoder().layers
    hook = layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    direct(folder, wave)
    hook.remove()
    (ours,) = encoder.encode([wave])
    assert_same(ours[0], seen[0][0, :25].numpy())
    np.testing.assert_allclose(ours[-1].mean(axis=-1), 0, atol=1e-5)  # by the final LayerNorm


def test_more_than_thirty_seconds_are_encoded_in_windows(folder):
    encoder: Any = load_encoder(str(folder), device="cpu", max_seconds=60)
    assert encoder.max_seconds == 30  # the model takes no more
    wave = noise(16_000 * 31, 7)
    (ours,) = encoder.encode([wave])
    assert (encoder.windows_of(len(wave)), ours.shape[1]) == (2, 1550)
    # The windows are the first and the last thirty seconds; the cut is in the middle, at 1450.
    assert_same(ours[:, :775], direct(folder, wave[:480_000])[:, :775])
    assert_same(ours[:, 775:], direct(folder, wave[16_000:])[:, 725:])


def test_shorter_windows_have_an_entry_of_their_own(folder):
    whole, short = (load_encoder(str(folder), device="cpu", max_seconds=s) for s in (30, 10))
    assert whole.identity != short.identity
    assert short.identity["window_seconds"] == [10, 2.0]
