"""Every family: a feature equals a direct forward pass of its utterance alone."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import (
    LAYERS,
    SPEECH,
    TEXT,
    assert_same,
    direct_model,
    direct_speech,
    direct_text,
    noise,
)


@pytest.mark.parametrize("kind", SPEECH)
def test_speech_equals_encoding_each_utterance_alone(folder_of, kind):
    folder = folder_of(kind)
    lengths = (16_000, 400, 7_321, 16_000, 30_123, 16_000, 719, 720)
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    encoder: Any = load_encoder(str(folder), device="cpu")
    encoded = encoder.encode(waves)
    for signal, ours in zip(waves, encoded, strict=True):
        expected = direct_speech(folder, signal)
        assert ours.shape == (LAYERS, encoder.frames(signal), encoder.dim)
        assert_same(ours, expected)
    assert (encoder.modality, encoder.layers, encoder.dim) == ("speech", (0, 1, 2), 32)


@pytest.mark.parametrize("kind", TEXT)
def test_text_equals_encoding_each_utterance_alone(folder_of, kind):
    folder = folder_of(kind)
    texts = ["the cat sat", "so sad", "the dog ran on", "it was so very happy", "mat", "a dog sat"]
    encoder: Any = load_encoder(str(folder), device="cpu")
    for text, ours in zip(texts, encoder.encode(texts), strict=True):
        assert ours.shape == (LAYERS, encoder.frames(text), encoder.dim)
        assert encoder.frames(text) == len(text.split()) + 2
        assert_same(ours, direct_text(folder, text))
    assert (encoder.modality, encoder.layers, encoder.dim) == ("text", (0, 1, 2), 32)


def test_the_order_of_a_batch_does_not_matter(folder_of):
    waves = [noise(length, 7) for length in (8000, 5000, 8000, 6400, 5000)]
    encoder: Any = load_encoder(str(folder_of("wav2vec2-group")), device="cpu")
    forward, backward = encoder.encode(waves), encoder.encode(waves[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert_same(one, other)


def test_no_inputs_give_no_outputs(folder_of):
    assert load_encoder(str(folder_of("wavlm")), device="cpu").encode([]) == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=st.lists(st.integers(400, 4000), min_size=1, max_size=5), repeat=st.booleans())
def test_any_batch_of_any_lengths(folder_of, lengths, repeat):
    folder = folder_of("wav2vec2-group")
    waves = [noise(length, number) for number, length in enumerate(lengths * (1 + repeat))]
    encoded = load_encoder(str(folder), device="cpu").encode(waves)
    for signal, ours in zip(waves, encoded, strict=True):
        assert_same(ours, direct_speech(folder, signal))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_is_close_and_not_equal(folder_of, precision, dtype):
    folder = str(folder_of("bert"))
    (exact,) = load_encoder(folder, device="cpu").encode(["the cat sat on the mat"])
    (rough,) = load_encoder(folder, device="cpu", precision=precision).encode(
        ["the cat sat on the mat"], dtype
    )
    assert rough.dtype == dtype
    np.testing.assert_allclose(rough, exact, atol=0.1)
    assert not np.array_equal(rough, exact)


@pytest.mark.parametrize(
    ("layers", "numbers"), [("all", (0, 1, 2)), ("last", (2,)), ("0,2", (0, 2)), ("2,0", (0, 2))]
)
@pytest.mark.parametrize("kind", ["hubert", "electra"])
def test_layers(folder_of, kind, layers, numbers):
    folder = folder_of(kind)
    one = noise(4000, 0) if kind in SPEECH else "the cat ran"
    expected = (direct_speech if kind in SPEECH else direct_text)(folder, one)
    encoder: Any = load_encoder(str(folder), device="cpu", layers=layers)
    assert encoder.layers == numbers
    assert_same(encoder.encode([one])[0], expected[list(numbers)])


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_text_without_a_token_is_its_special_tokens(folder_of, text):
    folder = folder_of("bert")
    encoder: Any = load_encoder(str(folder), device="cpu")
    assert_same(encoder.encode([text])[0], direct_text(folder, text))


def test_weights_in_several_files_and_in_the_older_format(folder_of, tmp_path):
    folder = folder_of("bert")
    expected = direct_text(folder, "the cat")
    several = shutil.copytree(folder, tmp_path / "several")
    (several / "model.safetensors").unlink()
    direct_model(folder).save_pretrained(several, max_shard_size="20KB")
    assert len(list(several.glob("model-*.safetensors"))) > 1
    older = shutil.copytree(folder, tmp_path / "older")
    torch.save(load_file(older / "model.safetensors"), older / "pytorch_model.bin")
    (older / "model.safetensors").unlink()
    for other in (several, older):
        assert_same(load_encoder(str(other), device="cpu").encode(["the cat"])[0], expected)


def test_a_pooler_that_is_not_used_may_be_missing(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("bert"), tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    ours = load_encoder(str(folder), device="cpu").encode(["the cat"])[0]
    assert_same(ours, direct_text(folder_of("bert"), "the cat"))
