"""Decoder language models: the features of a token are those of the text up to it, alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import (
    BEGINS,
    DECODERS,
    LAYERS,
    WORDS,
    assert_same,
    direct_text,
)


def texts_of(counts: list[int], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, count)) for count in counts]


@pytest.mark.parametrize("kind", DECODERS)
@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(counts=st.lists(st.integers(1, 31), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_texts_in_padded_batches(folder_of, kind, counts, seed):
    folder, texts = folder_of(kind), texts_of(counts, seed)
    encoder: Any = load_encoder(str(folder), device="cpu")
    alone = encoder.encode(texts)
    encoder.padded = True
    for text, one, ours in zip(texts, alone, encoder.encode(texts), strict=True):
        expected = direct_text(folder, text)
        if kind != "qwen2":  # its tokens are bytes
            assert expected.shape[:2] == (LAYERS, len(text.split()) + (kind in BEGINS))
        assert_same(one, expected)
        assert_same(ours, expected)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_token_does_not_see_what_follows(folder_of, kind):
    encoder: Any = load_encoder(str(folder_of(kind)), device="cpu")
    short, long = encoder.encode(["the cat sat", "the cat sat on the mat"])
    assert_same(long[:, : short.shape[1]], short)


def test_a_long_text_has_a_frame_for_each_token(folder_of):
    folder = folder_of("gpt2")
    (text,) = texts_of([75], 0)
    encoder: Any = load_encoder(str(folder), device="cpu")
    (ours,) = encoder.encode([text])
    assert ours.shape == (LAYERS, 75, 32)
    first = direct_text(folder, " ".join(text.split()[:28]))  # of 32 tokens, 4 are cut off
    assert_same(ours[:, :28], first)


def test_a_text_without_a_token_has_no_frame(folder_of):
    encoder: Any = load_encoder(str(folder_of("gpt2")), device="cpu")
    assert encoder.frames(" ") == 0
