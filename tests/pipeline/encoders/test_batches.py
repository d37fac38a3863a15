"""The features of an utterance do not depend on the other utterances in its batch."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mser.pipeline.encoders import FAMILIES, EncoderSettings
from mser.pipeline.encoders.checkpoint_files import find_encoder
from mser.pipeline.extract import load_encoder
from mser.pipeline.extract.worker import cached_encoder
from mser.tests.support.small_models import (
    DECODERS,
    SPEECH,
    TEXT,
    WORDS,
    assert_same,
    direct_model,
    direct_speech,
    direct_text,
    noise,
)

# On a GPU too, if this machine has one.
device = pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def padding(folder, device="cpu") -> Any:
    """An encoder that batches as on a GPU."""
    encoder = load_encoder(str(folder), device=device)
    assert encoder.padded == (device == "cuda")  # on a CPU padding only costs time
    encoder.padded = encoder.exact_when_padded
    assert encoder.padded
    return encoder


shared = cache(padding)
"""The same encoder for all examples of a test. Do not change it."""


def passes_of(encoder, monkeypatch) -> list[tuple[int, ...]]:
    """The lengths in every forward pass from now on."""
    seen: list[tuple[int, ...]] = []
    whole = encoder.hidden_states

    def counted(model, values, lengths):
        seen.append(tuple(lengths))
        return whole(model, values, lengths)

    monkeypatch.setattr(encoder, "hidden_states", counted)
    return seen


def test_every_family_is_tested_here():
    kinds = {kind.partition("-group")[0] for kind in (*SPEECH, *TEXT)} | {"whisper", "torchaudio"}
    kinds |= {"deberta-v2"}
    kinds |= {*DECODERS, "wav2vec2-bert"}  # in test_decoder.py and test_wav2vec2_bert.py
    kinds |= {"log-mel", "egemaps"}  # in test_feature_extractors.py
    kinds |= {"clip", "clip_vision_model", "dinov2", "dinov2_with_registers", "videomae", "vit"}
    assert set(FAMILIES) <= kinds


@device
@pytest.mark.parametrize("kind", SPEECH)
@few
@given(lengths=st.lists(st.integers(400, 6000), min_size=2, max_size=6))
def test_speech_in_padded_batches(folder_of, kind, device, lengths):
    folder = folder_of(kind)
    waves = [noise(length, number) for number, length in enumerate(lengths)]
    for one, ours in zip(waves, shared(folder, device).encode(waves), strict=True):
        assert_same(ours, direct_speech(folder, one))


@device
@pytest.mark.parametrize("kind", TEXT)
@few
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_text_in_padded_batches(folder_of, kind, device, counts, seed):
    folder = folder_of(kind)
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, count)) for count in counts]
    for one, ours in zip(texts, shared(folder, device).encode(texts), strict=True):
        assert_same(ours, direct_text(folder, one))


def test_plain_padding_is_not_exact(folder_of):
    """Without this error of plain padding, the tests above would prove nothing."""
    folder = folder_of("wav2vec2-group")
    waves = [noise(6000, 0), noise(3000, 1)]
    encoder = padding(folder)
    mask = torch.zeros(2, 6000, dtype=torch.long)
    values = torch.zeros(2, 6000)
    for row, one in enumerate(waves):
        mask[row, : len(one)] = 1
        values[row, : len(one)] = torch.from_numpy(encoder.preprocess(one))
    with torch.inference_mode():
        naive = direct_model(folder)(values, attention_mask=mask).last_hidden_state
    short = direct_speech(folder, waves[1])[-1]
    error = np.linalg.norm(naive[1, : len(short)].numpy() - short) / np.linalg.norm(short)
    assert error > 0.01


def test_a_batch_is_bounded_and_the_longest_come_first(folder_of, monkeypatch):
    encoder = padding(folder_of("wavlm"))
    encoder.frames_at_once = 30
    seen = passes_of(encoder, monkeypatch)
    lengths = [1600, 6400, 720, 3200, 3210, 20_000]
    encoder.encode([noise(length, 0) for length in lengths])
    # 62 frames are more than fit, so they go alone; 19 and 9 + 9; then 9 + 4 + 1.
    assert [len(batch) for batch in seen] == [1, 1, 3, 1]
    assert [length for batch in seen for length in batch] == sorted(lengths, reverse=True)


def test_without_padding_only_equal_lengths_share_a_pass(folder_of, monkeypatch):
    encoder: Any = load_encoder(str(folder_of("wavlm")), device="cpu")
    seen = passes_of(encoder, monkeypatch)
    encoder.encode(
        [noise(length, number) for number, length in enumerate([800, 900, 800, 900, 801])]
    )
    assert sorted(seen) == [(800, 800), (801,), (900, 900)]


@pytest.mark.parametrize("fits", [1, 3])
def test_a_batch_that_does_not_fit_into_memory_is_halved(folder_of, monkeypatch, fits):
    folder = folder_of("hubert")
    encoder = padding(folder)
    seen = passes_of(encoder, monkeypatch)
    whole = encoder.hidden_states

    def small(model, values, lengths):
        if len(lengths) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(model, values, lengths)

    monkeypatch.setattr(encoder, "hidden_states", small)
    waves = [noise(length, length) for length in (4000, 3900, 3800, 3700, 3600, 3500)]
    for one, ours in zip(waves, encoder.encode(waves), strict=True):
        assert_same(ours, direct_speech(folder, one))
    first = list(seen)
    assert sum(map(len, first)) == len(waves)
    seen.clear()
    encoder.encode(waves)  # the size that was too large is not tried again
    assert [len(batch) for batch in seen] == [len(batch) for batch in first]


def test_one_utterance_that_does_not_fit_is_an_error(folder_of, monkeypatch):
    encoder = padding(folder_of("hubert"))

    def never(model, values, lengths):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "hidden_states", never)
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode([noise(4000, 0), noise(3000, 0)])


@pytest.mark.parametrize("kind", ["wav2vec2-group", "hubert-batch", "bert", "whisper"])
def test_threads_do_not_disturb_each_other(folder_of, kind):
    folder = folder_of(kind)
    text = kind == "bert"
    encoder = padding(folder)
    rng = np.random.default_rng(0)
    batches = [
        [
            " ".join(rng.choice(WORDS, n)) if text else noise(400 * n, n)
            for n in rng.integers(1, 9, 4)
        ]
        for _ in range(6)
    ]
    alone = list(map(padding(folder).encode, batches))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, batches))
    for one, other in zip(together, alone, strict=True):
        for ours, expected in zip(one, other, strict=True):
            assert_same(ours, expected)


def test_features_in_half_precision_are_those_of_single_precision_rounded(folder_of):
    encoder: Any = load_encoder(str(folder_of("wavlm")), device="cpu")
    waves = [noise(3000, 0), noise(4000, 1)]
    for half, single in zip(encoder.encode(waves, "float16"), encoder.encode(waves), strict=True):
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half, single.astype(np.float16))


def test_threads_of_a_worker_share_one_encoder(folder_of, monkeypatch):
    made = []
    family: Any = FAMILIES["bert"]

    def slow(settings):
        made.append(settings)
        time.sleep(0.05)
        return family(settings)

    monkeypatch.setitem(FAMILIES, "bert", slow)
    settings = EncoderSettings(find_encoder(str(folder_of("bert"))), "bert", device="cpu")
    with ThreadPoolExecutor(4) as pool:
        encoders = list(pool.map(cached_encoder, [settings] * 4))
    assert len(made) == 1
    assert (
        len({id(encoder) for encoder in encoders})
        == len({id(encoder.model) for encoder in encoders})
        == 1
    )
