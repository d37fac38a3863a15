"""Long utterances are cut into overlapping windows, and no frame is lost."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoTokenizer

from mser.pipeline.encoders import speech as speech_module
from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import (
    LAYERS,
    TEXT,
    WORDS,
    assert_same,
    direct_speech,
    direct_text,
    hidden_states,
    noise,
)


@pytest.fixture
def short_windows(monkeypatch):
    """Encoders with windows of 1 s (49 frames) that overlap by 0.2 s (10 frames)."""
    monkeypatch.setattr(speech_module, "OVERLAP_SECONDS", 0.2)
    return lambda folder: load_encoder(str(folder), device="cpu", max_seconds=1.0)


@pytest.mark.parametrize("samples", [16_000 + 400, 30_000, 16_000 * 3, 16_000 * 4 + 123])
@pytest.mark.parametrize("kind", ["wav2vec2-group", "wav2vec2-layer", "wavlm"])
def test_a_long_wave_loses_no_frame_and_is_cut_in_the_overlap(
    folder_of, short_windows, kind, samples
):
    folder = folder_of(kind)
    signal = noise(samples, 3)
    encoder: Any = short_windows(folder)
    (ours,) = encoder.encode([signal])
    frames = direct_speech(folder, signal).shape[1]  # as whole
    assert ours.shape == (LAYERS, frames, 32)

    size, overlap, hop = 49, 10, 320
    starts = [*range(0, frames - size, size - overlap), frames - size]
    assert encoder.windows_of(samples) == len(starts)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    whole = extractor(signal, sampling_rate=16_000, return_tensors="pt").input_values
    windows = [
        hidden_states(folder, {"input_values": whole[:, start * hop : (start + size) * hop + 80]})
        for start in starts
    ]
    assert {window.shape[1] for window in windows} == {size}
    for frame in range(frames):
        # Of the windows that hold the frame, the one in whose middle it is deepest.
        fitting = [n for n, start in enumerate(starts) if start <= frame < start + size]
        seams = [(starts[n] + starts[n - 1] + size) // 2 for n in fitting[1:]]
        number = fitting[sum(frame >= seam for seam in seams)]
        expected = windows[number][:, frame - starts[number]]
        assert_same(ours[:, frame], expected)


def test_a_wave_of_just_one_window_is_encoded_whole(folder_of, short_windows):
    folder = folder_of("wav2vec2-group")
    signal = noise(16_000, 4)
    encoder: Any = short_windows(folder)
    assert encoder.windows_of(len(signal)) == 1
    assert_same(encoder.encode([signal])[0], direct_speech(folder, signal))


def test_a_long_wave_beside_short_ones(folder_of, short_windows):
    folder = folder_of("hubert")
    encoder: Any = short_windows(folder)
    signals = [noise(5000, 1), noise(40_000, 2), noise(15_800, 3)]
    together = encoder.encode(signals)
    for signal, ours in zip(signals, together, strict=True):
        assert_same(ours, encoder.encode([signal])[0])


def test_a_wave_of_more_than_half_a_minute_has_as_many_frames_as_whole(folder_of):
    folder = folder_of("wav2vec2-group")
    signal = noise(16_000 * 37 + 11, 5)
    encoder: Any = load_encoder(str(folder), device="cpu", layers="last")
    assert encoder.windows_of(len(signal)) == 2
    assert encoder.encode([signal])[0].shape[1] == direct_speech(folder, signal).shape[1]


@pytest.mark.parametrize("words", [31, 52, 75, 200])
@pytest.mark.parametrize("kind", TEXT)
def test_a_long_text_keeps_only_its_own_tokens(folder_of, kind, words):
    folder = folder_of(kind)
    rng = np.random.default_rng(words)
    text = " ".join(rng.choice(WORDS, words))
    encoder: Any = load_encoder(str(folder), device="cpu")
    assert encoder.max_tokens == 32
    whole = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    windows = encoder.prepare(text)
    kept = np.concatenate([window.values[window.kept] for window in windows])
    np.testing.assert_array_equal(kept, whole)

    (ours,) = encoder.encode([text])
    assert ours.shape == (LAYERS, words + 2, 32)
    assert encoder.frames(text) == words + 2

    # Windows of 30 tokens between two special tokens; the next window repeats 8 of them.
    first, *content, last = whole
    size, overlap = 30, 8
    start, done, expected = 0, 0, []
    while True:
        part = content[start : start + size]
        ids = torch.tensor([[first, *part, last]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        states = hidden_states(folder, inputs)
        ends = start + size >= words
        stop = words + 1 if ends else start + size - overlap // 2
        expected.append(states[:, (1 + done - start if start else 0) : 1 + stop - start])
        if ends:
            break
        done, start = stop, start + size - overlap
    assert_same(ours, np.concatenate(expected, axis=1))


@pytest.mark.parametrize("words", [29, 30])
def test_a_text_that_just_fits_is_encoded_whole(folder_of, words):
    folder = folder_of("roberta")
    text = " ".join(["cat"] * words)
    encoder: Any = load_encoder(str(folder), device="cpu")
    assert len(encoder.prepare(text)) == 1
    assert_same(encoder.encode([text])[0], direct_text(folder, text))
