"""Encoders that do not exist or do not fit raise an error with the reason."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2FeatureExtractor

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import SPEECH, noise


def test_a_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"'.*/none' is not an encoder: the folder does not exist"):
        load_encoder(str(tmp_path / "none"))


def test_a_folder_without_configuration(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.json; give a folder written by"):
        load_encoder(str(tmp_path))


def test_a_folder_without_weights(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("bert"), tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="the folder has no weights"):
        load_encoder(str(folder))


def test_a_configuration_that_is_cut_off(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("bert"), tmp_path / "bert")
    content = (folder / "config.json").read_text()
    (folder / "config.json").write_text(content[: len(content) // 2])
    with pytest.raises(PipelineError, match=r"config\.json"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("given_type", "nearest"), [("wav2vec", "wav2vec2"), ("robertaa", "roberta")]
)
def test_an_unknown_family_suggests_the_nearest(folder_of, tmp_path, given_type, nearest):
    folder = shutil.copytree(folder_of("bert"), tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": given_type}))
    with pytest.raises(UsageError, match=f"'{given_type}': did you mean '{nearest}'") as caught:
        load_encoder(str(folder))
    assert all(f" {known}," in str(caught.value) for known in ("electra", "hubert", "vit"))


@pytest.mark.parametrize(("kind", "other"), [("bert", "speech"), ("wavlm", "text")])
def test_an_encoder_of_the_other_modality(folder_of, kind, other):
    with pytest.raises(UsageError, match=rf"\({kind}\): give a {other} encoder"):
        load_encoder(str(folder_of(kind)), modality=other)


def test_an_unknown_device(folder_of):
    with pytest.raises(UsageError, match="unknown device 'cpuu': did you mean 'cpu'"):
        load_encoder(str(folder_of("bert")), device="cpuu").encode(["the cat"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("seconds", [3.9, 0, float("nan"), float("inf")])
def test_windows_that_cannot_be(folder_of, seconds):
    with pytest.raises(UsageError, match="give a finite number of seconds, 4 or more"):
        load_encoder(str(folder_of("wavlm")), max_seconds=seconds)


def test_a_gpu_on_a_machine_without_one(folder_of):
    with pytest.raises(UsageError, match="'cuda': this machine has no GPU"):
        load_encoder(str(folder_of("bert")), device="cuda").encode(["the cat"])


def test_an_unknown_precision(folder_of):
    with pytest.raises(UsageError, match=r"unknown precision 'int8' \(known: bfloat16"):
        load_encoder(str(folder_of("bert")), precision="int8")


def test_tf32_needs_a_gpu(folder_of):
    with pytest.raises(UsageError, match="precision tf32 needs a GPU: give float32"):
        load_encoder(str(folder_of("bert")), precision="tf32", device="cpu")


@pytest.mark.parametrize("layers", ["3", "0,7"])
def test_layers_the_encoder_does_not_have(folder_of, layers):
    with pytest.raises(UsageError, match="this encoder has the layers 0 to 2"):
        load_encoder(str(folder_of("bert")), layers=layers)


@pytest.mark.parametrize("layers", ["first", "", "1;2", "1.5", "-1"])
def test_layers_that_are_not_numbers(folder_of, layers):
    with pytest.raises(UsageError, match="give all, last, or the encoder's own layer numbers"):
        load_encoder(str(folder_of("bert")), layers=layers)


@pytest.mark.parametrize("kind", ["wav2vec2-group", "bert"])
def test_weights_that_lack_parameters(folder_of, tmp_path, kind):
    folder = shutil.copytree(folder_of(kind), tmp_path / kind)
    weights = load_file(folder / "model.safetensors")
    lost = [name for name in weights if "layers.1.attention" in name or "layer.1.att" in name]
    assert lost
    for name in lost:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    one = noise(4000, 0) if kind in SPEECH else "the cat"
    with pytest.raises(PipelineError, match=f"lack {len(lost)} parameters .*would be random"):
        load_encoder(str(folder), device="cpu").encode([one])


def test_an_encoder_that_expects_another_sample_rate(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("hubert"), tmp_path / "hubert")
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    with pytest.raises(PipelineError, match="expects audio at 8000 Hz"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (
            np.zeros((1, 8000), np.float32),
            r"shape \(1, 8000\) .* give wave\[0\]",
        ),
        (np.zeros((8000, 1), np.float32), r"shape \(8000, 1\) .* give wave\[:, 0\]"),
        (np.zeros((2, 8000), np.float32), r"shape \(2, 8000\) .* give one channel"),
        (np.float32(0.5), r"shape \(\) .* give a list of waves"),
        (np.zeros(8000, np.int16), "has the type int16: give floating samples from -1 to 1"),
    ],
)
def test_what_is_not_a_wave_is_refused(folder_of, wave, message) -> None:
    for name in (str(folder_of("wav2vec2-group")), str(folder_of("whisper")), "log-mel"):
        with pytest.raises(UsageError, match=message):
            load_encoder(name).encode([wave])


def test_a_tensor_and_float64_are_waves_too(folder_of) -> None:
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    encoder = load_encoder(str(folder_of("wav2vec2-group")))
    expected = encoder.encode([wave])[0]
    for same in (torch.from_numpy(wave), wave.astype(np.float64)):
        np.testing.assert_array_equal(encoder.encode([same])[0], expected)
