"""Predicting from a clip or a text with a finished run."""

import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mser as package
from mser.cache import FeatureCache
from mser.heads.linear import LinearProbe
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_text_encoder
from mser.pipeline.errors import UsageError
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.runs.predict import Prediction, predict
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import CLASSES, made, made_cache, official, read_json, small

QUERY = [
    *("epochs=1", "head.width=16", "head.n_attention_heads=2", "head.n_queries=2"),
    *("head.n_encoder_layers=1", "head.n_decoder_layers=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> Path:
    """A finished run with two seeds. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    return train_head(small("linear", filled_cache, out, "epochs=2", seeds=(0, 3))).path


@pytest.fixture(scope="module")
def utterances(corpus_root: Path) -> list[Any]:
    """The shortest, an ordinary and the longest utterance of the synthetic corpus."""
    found: list[Any] = synthetic.load(corpus_root).utterances
    by_size = sorted(found, key=lambda utterance: utterance.audio.stat().st_size)
    return [by_size[0], by_size[len(by_size) // 2], by_size[-1]]


def from_the_cache(cache: Path, run: Path, head: str, id: str, without: str = "", **options):
    """The mean over checkpoints of the probabilities from an utterance's cached features."""
    entries = {m: FeatureCache(cache).open("synthetic", modality=m) for m in ("speech", "text")}
    dims = {m: entry.dim for m, entry in entries.items()}
    n_layers = {m: entry.n_layers for m, entry in entries.items()}
    model = package.build_head(head, dims, len(CLASSES), n_layers, **options).eval()
    features, lengths = {}, {}
    for m, entry in entries.items():
        layers = [entry.layers[position] for position in model.layers[m]]
        states = torch.tensor(np.array(entry.read([id], layers)[0])).unsqueeze(0)
        features[m] = states
        lengths[m] = torch.tensor([0 if m == without else states.shape[2]])
    rows = []
    for checkpoint in sorted((run / "checkpoints").iterdir()):
        model.load_state_dict(load_file(checkpoint))
        with torch.no_grad():
            rows.append(model(features, lengths).logits[0].double().softmax(0))
    return torch.stack(rows).mean(dim=0).numpy()


def probabilities_of(prediction: Prediction) -> np.ndarray:
    return np.array([prediction.probabilities[name] for name in CLASSES])


# Predictions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_clip_of_the_corpus_is_predicted_as_its_cached_features(
    run: Path, filled_cache: Path, utterances, which: int
) -> None:
    utterance = utterances[which]
    found = predict(run, utterance.audio, utterance.text, device="cpu")
    wanted = from_the_cache(filled_cache, run, "linear", utterance.id)
    np.testing.assert_allclose(probabilities_of(found), wanted, atol=1e-5)
    assert found.winner == CLASSES[wanted.argmax()]
    assert len(found.checkpoints) == 8  # four folds, two seeds
    assert {(vote.fold, vote.seed) for vote in found.checkpoints} == {
        (f"ses0{n}", seed) for n in (1, 2, 3, 4) for seed in (0, 3)
    }


def test_the_heads_get_the_layers_and_the_rounding_of_the_cache(
    run: Path, filled_cache: Path, utterances, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterance, seen, forward = utterances[1], [], LinearProbe.forward

    def spy(self, features, *more):
        seen.append(features)
        return forward(self, features, *more)

    monkeypatch.setattr(LinearProbe, "forward", spy)
    predict(run, utterance.audio, utterance.text, device="cpu")
    for modality in ("speech", "text"):
        stored = FeatureCache(filled_cache).open("synthetic", modality=modality)[utterance.id]
        assert stored.dtype == np.float16
        given = seen[0][modality][0].numpy()
        assert given.dtype == np.float16
        np.testing.assert_allclose(given, stored, rtol=5e-3, atol=1e-3)


def test_the_settings_are_those_of_the_extraction(
    corpus_root: Path, encoders: dict[str, str], tmp_path: Path, utterances
) -> None:
    cache, longest = tmp_path / "cache", utterances[-1]
    settings = ExtractSettings("synthetic", corpus_root, cache, encoders, workers=0)
    extract(replace(settings, layers="0,2", dtype="float32", max_seconds=4.0, precision="bfloat16"))
    protocol = "hold-out:session=ses01"
    former = ("epochs=1", "standardise=false", "head.pooling='mean'")  # as those of an old run
    done = train_head(
        small("linear", cache, tmp_path / "run", *former, protocol=protocol, layer="2")
    )
    wanted = from_the_cache(cache, done.path, "linear", longest.id, layer=1, pooling="mean")
    found = predict(done.path, longest.audio, longest.text, device="cpu")
    np.testing.assert_allclose(probabilities_of(found), wanted, atol=1e-5)
    # The configuration of an old run has no format, and the position of its layer in the cache.
    config = (done.path / "config.toml").read_text(encoding="utf-8")
    old = config.replace("format = 5\n", "").replace('layer = "2"', 'layer = "1"')
    (done.path / "config.toml").write_text(old, encoding="utf-8")
    found = predict(done.path, longest.audio, longest.text, device="cpu")
    np.testing.assert_allclose(probabilities_of(found), wanted, atol=1e-5)


@pytest.mark.parametrize("given", ["speech", "text"])
def test_a_modality_that_is_not_given_is_missing_and_noted(
    run: Path, filled_cache: Path, utterances, given: str
) -> None:
    utterance = utterances[1]
    audio, text = (utterance.audio, None) if given == "speech" else (None, utterance.text)
    missing = "text" if given == "speech" else "speech"
    found = predict(run, audio, text, device="cpu")
    wanted = from_the_cache(filled_cache, run, "linear", utterance.id, without=missing)
    np.testing.assert_allclose(probabilities_of(found), wanted, atol=1e-5)
    assert found.modalities == (given,)
    assert any(f"never trained without {missing}" in note for note in found.notes)


def test_there_is_no_note_with_both_modalities_or_a_masked_training(
    run: Path, filled_cache: Path, tmp_path: Path, utterances
) -> None:
    utterance = utterances[0]
    assert not any(
        "without" in note for note in predict(run, utterance.audio, utterance.text).notes
    )
    settings = small("linear", filled_cache, tmp_path / "query", protocol="hold-out:session=ses01")
    masked = train_head(replace(settings, head="query").with_overrides(QUERY))
    assert not any("without" in note for note in predict(masked.path, text=utterance.text).notes)


def test_any_format_that_the_extraction_reads(run: Path, tmp_path: Path, utterances) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(utterances[1].audio)) as source, av.open(str(clip), "w") as target:
        stream = target.add_stream("aac", rate=16_000)
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    found = predict(run, clip, device="cpu")
    plain = predict(run, utterances[1].audio, device="cpu")
    np.testing.assert_allclose(probabilities_of(found), probabilities_of(plain), atol=0.1)
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_encoders_and_cache_may_have_moved(
    filled_cache: Path, run: Path, encoders: dict[str, str], tmp_path: Path, utterances
) -> None:
    utterance = utterances[1]
    moved = shutil.copytree(encoders["text"], tmp_path / "elsewhere")
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    there = predict(
        run, text=utterance.text, encoders={"text": str(moved)}, cache=str(cache), device="cpu"
    )
    assert there.probabilities == predict(run, text=utterance.text, device="cpu").probabilities


def test_a_folder_of_an_encoder_that_is_gone_is_named(
    filled_cache: Path, run: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    for record in cache.glob("synthetic/text-small-bert-*/runs/*.json"):
        content = {**read_json(record), "encoder_source": "/gone/small-bert"}
        record.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match="was in the folder '/gone/small-bert', which is not") as e:
        predict(run, text="Oh.", cache=cache, device="cpu")
    assert str(e.value).endswith("give its folder with --text-encoder")


# On the command line ------------------------------------------------------------------------------


def test_the_command_prints_the_classes_the_most_probable_first(
    call: Call, run: Path, utterances
) -> None:
    code, out, err = call("predict", run, "--text", utterances[0].text, "--device", "cpu")
    assert (code, err) == (0, "")
    wanted = predict(run, text=utterances[0].text, device="cpu")
    first, *lines = out.splitlines()
    assert first.startswith(f"{wanted.winner}: linear trained on synthetic")
    names = [line.split()[0] for line in lines if line.split()[0] in CLASSES]
    assert names == sorted(CLASSES, key=lambda name: -wanted.probabilities[name])
    assert any("synthetic voices" in line for line in lines)


def test_the_command_prints_json(call: Call, run: Path, utterances) -> None:
    utterance = utterances[0]
    options = ["--audio", utterance.audio, "--text", utterance.text, "--device", "cpu", "--json"]
    code, out, _ = call("predict", run, *options)
    found = json.loads(out)
    assert code == 0
    assert found["modalities"] == ["speech", "text"]
    assert list(found["probabilities"]) == list(CLASSES)
    assert found["predicted"] == max(found["probabilities"], key=found["probabilities"].get)
    each = [part["probabilities"]["sad"] for part in found["checkpoints"]]
    assert found["probabilities"]["sad"] == pytest.approx(sum(each) / 8)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "give one or more of --audio, --text, --video"),
        (["--audio", "nowhere.wav"], 2, "nowhere.wav"),
        (["--text", "  "], 2, "the text is empty"),
        (["--audio", "noise.wav"], 1, "noise.wav"),
        (["--text", "oh", "--text-encoder", "other"], 2, "weights is"),
        (["--text", "oh", "--text-encoder", "./absent"], 2, "absent"),
        (["--text", "oh", "--cache", "empty"], 2, "if the cache has moved, give its folder or URL"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_sentence(
    call: Call, run: Path, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    (tmp_path / "noise.wav").write_bytes(bytes(range(256)))
    if "other" in options:
        save_text_encoder(tmp_path / "other", [*synthetic.SENTENCE_WORDS, "quite", "another"])
    ended, out, err = call("predict", run, *options)
    assert (ended, out) == (code, "")
    assert is_one_sentence(err)
    assert words in err


def test_a_clip_shorter_than_a_frame_is_refused(call: Call, run: Path, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "short.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\x00\x40\x00\xc0" * 20)
    code, _, err = call("predict", run, "--audio", "short.wav")
    assert code == 1
    assert is_one_sentence(err)
    assert "too short" in err


def test_a_run_that_is_not_finished_or_damaged_is_refused(
    call: Call, run: Path, tmp_path: Path
) -> None:
    code, _, err = call("predict", tmp_path, "--text", "oh")
    assert code == 2
    assert is_one_sentence(err)
    other = shutil.copytree(run, tmp_path / "other")
    (other / "metrics.json").write_text('{"classes": ["a", "b"]}')
    code, _, err = call("predict", other, "--text", "oh")
    assert code == 1
    assert is_one_sentence(err)
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "checkpoints" / "ses02-seed3.safetensors").write_bytes(b"no weights")
    code, _, err = call("predict", broken, "--text", "oh")
    assert code == 1
    assert is_one_sentence(err)
    assert "ses02-seed3" in err


def test_a_modality_that_the_run_does_not_have_is_refused(call: Call, tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    only_speech = train_head(made(cache, tmp_path / "run", "epochs=1"))
    assert list(read_json(only_speech.path / "metrics.json")["classes"]) == list(CLASSES)
    code, _, err = call("predict", only_speech.path, "--text", "oh")
    assert code == 2
    assert is_one_sentence(err)
    assert "trained without text: leave out --text" in err
