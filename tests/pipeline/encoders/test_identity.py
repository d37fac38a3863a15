"""The identity of an encoder depends on its numbers, not on its name or device."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mser.cache import FeatureCache
from mser.pipeline.encoders import checkpoint_files
from mser.pipeline.encoders.checkpoint_files import folder_name
from mser.pipeline.extract import ExtractSettings, extract, load_encoder
from mser.pipeline.train.examples import find_examples


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("emotion-hubert/model", "emotion-hubert/model"),
        ("emotion-hubert/checkpoint-500", "emotion-hubert/checkpoint-500"),
        ("emotion-hubert/Best", "emotion-hubert/Best"),
        ("models/wav2vec2-base", "wav2vec2-base"),
        ("models/my-model", "my-model"),
        ("hub/models--facebook--wav2vec2-base/snapshots/0b5b8e86", "facebook/wav2vec2-base"),
        ("hub/models--distilbert--a--b/snapshots/0b5b8e86", "distilbert/a--b"),
        ("snapshots/0b5b8e86", "0b5b8e86"),
    ],
)
def test_the_name_of_a_folder_is_recognised(folder, name):
    assert folder_name(Path("/data") / folder) == name


def test_an_entry_with_an_older_name_is_found_again(corpus_root, encoders, tmp_path, monkeypatch):
    folder = shutil.copytree(encoders["text"], tmp_path / "small-bert" / "model")
    cache = tmp_path / "cache"
    settings = ExtractSettings("synthetic", corpus_root, cache, {"text": str(folder)}, workers=0)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_files, "folder_name", lambda folder: folder.name)
        assert extract(settings).modalities[0].new == 96
    assert extract(settings).modalities[0].new == 0
    (entry,) = FeatureCache(cache).entries("synthetic")
    assert entry.spec.encoder == "model"
    found = find_examples(cache, "synthetic", {"text": str(folder)})
    assert found.entries["text"].spec == entry.spec


def test_the_identity_depends_on_the_weights_and_not_on_the_name(folder_of, tmp_path):
    original = folder_of("hubert")
    renamed = shutil.copytree(original, tmp_path / "another-name")
    changed = shutil.copytree(original, tmp_path / "changed" / original.name)
    weights = load_file(changed / "model.safetensors")
    name = next(name for name in weights if "attention" in name)
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})

    encoders = [load_encoder(str(folder), device="cpu") for folder in (original, renamed, changed)]
    one, other_name, other_weights = (encoder.identity for encoder in encoders)
    assert [encoder.name for encoder in encoders] == ["hubert", "another-name", "hubert"]
    assert other_name == one
    assert other_weights != one
    json.dumps(one)


def test_the_identity_depends_on_everything_that_changes_the_numbers(folder_of, tmp_path):
    original = folder_of("hubert")
    one = load_encoder(str(original), device="cpu").identity
    assert load_encoder(str(original), device="auto").identity == one
    assert load_encoder(str(original), precision="bfloat16").identity != one

    changed = shutil.copytree(original, tmp_path / original.name)
    path = changed / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_normalize": False}))
    assert load_encoder(str(changed)).identity != one

    recorded = shutil.copytree(original, tmp_path / "again" / original.name)
    path = recorded / "config.json"
    facts = {"transformers_version": "0.0.0", "_name_or_path": "/somewhere"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    assert load_encoder(str(recorded)).identity == one

    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-3}))
    assert load_encoder(str(recorded)).identity != one


def test_settings_can_be_sent_to_another_process(folder_of):
    encoder: Any = load_encoder(str(folder_of("bert")), device="cpu", layers="0,2")
    (before,) = encoder.encode(["the cat"])
    content = pickle.dumps(encoder.settings)
    assert len(content) < 2000
    again = type(encoder)(pickle.loads(content))
    assert pickle.loads(content) == encoder.settings
    np.testing.assert_array_equal(again.encode(["the cat"])[0], before)
