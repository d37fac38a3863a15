"""torchaudio's bundles: found by name, and exact in any batch."""

import math
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from torchaudio.pipelines import Wav2Vec2Bundle

from mser.pipeline.errors import UsageError
from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import assert_same, noise

CONVOLUTIONS = [(32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2]
SMALL = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": CONVOLUTIONS,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 64,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
LARGE = {**SMALL, "extractor_mode": "layer_norm", "encoder_layer_norm_first": True}
WAVLM = {**SMALL, "encoder_num_buckets": 8, "encoder_max_distance": 20}
BUNDLES = {
    "SMALL": Wav2Vec2Bundle("small.pth", SMALL, 16_000, False, "Wav2Vec2"),
    "LARGE": Wav2Vec2Bundle("large.pth", LARGE, 16_000, True, "Wav2Vec2"),
    "WAVLM": Wav2Vec2Bundle("wavlm.pth", WAVLM, 16_000, False, "WavLM"),
    "SLOW": Wav2Vec2Bundle("slow.pth", SMALL, 8_000, False, "Wav2Vec2"),
}


@pytest.fixture
def bundles(monkeypatch, tmp_path):
    """Small random bundles, with their checkpoints in the download folder of torchaudio."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name, bundle in BUNDLES.items():
        monkeypatch.setattr(torchaudio.pipelines, name, bundle, raising=False)
        torch.manual_seed(1)
        wavlm = bundle._model_type == "WavLM"
        make = torchaudio.models.wavlm_model if wavlm else torchaudio.models.wav2vec2_model
        torch.save(make(**bundle._params).state_dict(), checkpoints / bundle._path)
    return checkpoints


def direct(name: str, wave):
    """Layers 1 to n (layers, frames, dim) by torchaudio alone, which normalises the wave itself."""
    model = BUNDLES[name].get_model()
    with torch.inference_mode():
        layers, _ = model.extract_features(torch.from_numpy(wave)[None])
    return torch.stack(layers, dim=1)[0].numpy()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["SMALL", "LARGE", "WAVLM"])
@pytest.mark.usefixtures("bundles")
def test_features_are_those_of_torchaudio_alone(name, padded):
    encoder: Any = load_encoder(f"torchaudio:{name}", device="cpu")
    encoder.padded = padded and encoder.exact_when_padded
    waves = [noise(samples, samples) for samples in (400, 5000, 720, 9001, 5000)]
    for wave, ours in zip(waves, encoder.encode(waves), strict=True):
        assert ours.shape == (3, encoder.frames(wave), 32)
        assert_same(ours[1:], direct(name, wave))
    assert encoder.layers == (0, 1, 2)


@pytest.mark.usefixtures("bundles")
def test_layer_0_is_the_input_of_the_first_transformer_layer():
    encoder: Any = load_encoder("torchaudio:SMALL", device="cpu")
    wave = noise(6000, 0)
    (ours,) = encoder.encode([wave])
    model = BUNDLES["SMALL"].get_model()
    seen: list[Any] = []
    model.encoder.transformer.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args))
    model(torch.from_numpy(wave)[None])
    assert_same(ours[0], seen[0][0][0].detach().numpy())


@pytest.mark.usefixtures("bundles")
def test_a_wavlm_never_shares_a_pass_with_another_length():
    assert not load_encoder("torchaudio:WAVLM", device="cpu").exact_when_padded
    assert load_encoder("torchaudio:SMALL", device="cpu").exact_when_padded


def test_another_checkpoint_is_another_identity(bundles):
    before = load_encoder("torchaudio:SMALL", device="cpu").identity
    weights = torch.load(bundles / "small.pth")
    torch.save({key: value + 1 for key, value in weights.items()}, bundles / "small.pth")
    assert load_encoder("torchaudio:SMALL", device="cpu").identity != before
    assert load_encoder("torchaudio:LARGE", device="cpu").identity["normalised"]


@pytest.mark.usefixtures("bundles")
def test_an_unknown_bundle_name():
    with pytest.raises(UsageError, match="did you mean 'WAV2VEC2_BASE'"):
        load_encoder("torchaudio:WAV2VEC_BASE")
    with pytest.raises(UsageError, match="expects audio at 8000 Hz"):
        load_encoder("torchaudio:SLOW")


def test_a_checkpoint_that_cannot_be_downloaded(bundles, monkeypatch):
    (bundles / "small.pth").unlink()

    def unreachable(url, path, progress):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    sentence = f"copy https://download.pytorch.org/torchaudio/models/small.pth to {bundles}"
    with pytest.raises(UsageError, match=re.escape(sentence)):
        load_encoder("torchaudio:SMALL")


@pytest.mark.usefixtures("bundles")
def test_a_normalised_wave_has_mean_0_and_variance_1():
    encoder: Any = load_encoder("torchaudio:LARGE", device="cpu")
    values = encoder.preprocess(noise(5000, 3))
    assert math.isclose(float(values.mean()), 0, abs_tol=1e-5)
    assert math.isclose(float(np.var(values)), 1, rel_tol=1e-2)


def test_without_a_torchaudio_that_fits_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(UsageError, match="need torchaudio, which cannot be imported beside torch"):
        load_encoder("torchaudio:WAV2VEC2_BASE")
