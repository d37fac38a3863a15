"""Features that are relative to what is usual for their speaker."""

import csv
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mser import load_run, predict, predict_many
from mser.cache import FeatureCache, pooled_entry
from mser.cache.formats.arrays import Array
from mser.pipeline.corpora import Utterance, synthetic
from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.serve.answers import Answers
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.speaker_normalisation import SpeakerNormalisation
from mser.tests.support.new_corpora import read_rows, write_manifest
from mser.tests.support.train_runs import CLASSES, made_both, make_utterance, rows, small, tiny

SPEAKERS = ("anna", "bert", "cleo", "dora")


def spoken(speakers: Sequence[str | None], each: int = 12) -> list[Utterance]:
    """Utterances of speakers; the last speaker is the test part, the one before the validation."""
    splits = ["train"] * (len(speakers) - 2) + ["validation", "test"]
    return [
        make_utterance(f"{speaker}/u{n:02}", speaker=speaker, split=split)
        for speaker, split in zip(speakers, splits, strict=True)
        for n in range(each)
    ]


def shifted(utterance: Utterance, states: Array) -> Array:
    """Another voice for each speaker: an own scale and an own offset of each dimension."""
    voice, dim = np.random.default_rng(SPEAKERS.index(str(utterance.speaker))), states.shape[2]
    scale, offset = voice.uniform(0.5, 2, dim), voice.uniform(-5, 5, dim)
    changed: Array = (states * scale + offset).astype(states.dtype)
    return changed


def speech_of(
    root: Path, utterances: Sequence[Utterance]
) -> tuple[SpeakerNormalisation, dict[str, Array]]:
    """The normalisation of the speech of a cache, and the features in float64."""
    cache = FeatureCache(root)
    entry = cache.open("made-up", modality="speech")
    found = SpeakerNormalisation.of(
        pooled_entry(cache, entry), entry.layers, utterances, torch.device("cpu")
    )
    return found, {id: np.asarray(entry[id], np.float64) for id in entry.ids}


def probabilities(written: list[dict[str, str]]) -> NDArray[np.float64]:
    by_id = sorted(written, key=lambda row: row["id"])
    return np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in by_id])


# Statistics ---------------------------------------------------------------------------------------


def test_frames_are_standardised_within_each_speaker(tmp_path: Path) -> None:
    """The formula with numpy: each utterance of the speaker weighs the same, whatever its length"""
    utterances = spoken(SPEAKERS)
    found, states = speech_of(made_both(tmp_path / "cache", utterances, voice=shifted), utterances)
    for speaker in SPEAKERS:
        own = [u for u in utterances if u.speaker == speaker]
        frames = [states[u.id] for u in own]
        mean = np.mean([x.mean(axis=1) for x in frames], axis=0)
        squares = [np.square(x - mean[:, None]).mean(axis=1) for x in frames]
        deviation = np.sqrt(np.mean(squares, axis=0))
        for utterance, x in zip(own, frames, strict=True):
            batch = torch.from_numpy(x)[None].half()  # features may be float16
            normalised = found.frames([utterance.id], batch)
            assert normalised.dtype == torch.float32
            expected = (batch[0].double().numpy() - mean[:, None]) / deviation[:, None]
            np.testing.assert_allclose(normalised[0].numpy(), expected, atol=1e-4)


def test_pooled_vectors_are_those_of_the_normalised_frames(tmp_path: Path) -> None:
    utterances = spoken(SPEAKERS)
    found, states = speech_of(made_both(tmp_path / "cache", utterances, voice=shifted), utterances)
    for utterance in utterances[::7]:
        x = torch.from_numpy(states[utterance.id]).float()
        normalised = found.frames([utterance.id], x[None])
        vectors = torch.cat([x.mean(dim=1), x.std(dim=1, correction=0)], dim=1)[None]
        expected = [normalised.mean(dim=2), normalised.std(dim=2, correction=0)]
        whole = torch.cat(expected, dim=2)
        torch.testing.assert_close(found.pooled([utterance.id], vectors), whole)
        torch.testing.assert_close(
            found.pooled([utterance.id], vectors[..., : x.shape[2]]), expected[0]
        )
        alone = found.pooled([utterance.id], vectors[:, 1:2], layer=1)
        torch.testing.assert_close(alone, whole[:, 1:2])


def test_speakers_with_few_utterances_and_no_speaker_are_one_group(tmp_path: Path) -> None:
    many = spoken(("anna", "bert"), each=10)
    few = spoken(("cleo", "dora"), each=9)
    nobody = spoken((None, None), each=1)[:1]
    utterances = [*many, *few, *nobody]
    found, _ = speech_of(made_both(tmp_path / "cache", utterances), utterances)
    groups: dict[int, set[str | None]] = {}
    for utterance in utterances:
        groups.setdefault(found.group_of[utterance.id], set()).add(utterance.speaker)
    assert sorted(map(len, groups.values())) == [1, 1, 3]
    assert {"cleo", "dora", None} in groups.values()


# Trainings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "query"])
def test_the_voice_of_a_speaker_makes_no_difference(tmp_path: Path, head: str) -> None:
    """A law: if all features of a speaker are scaled and moved, nothing changes.

    Without the normalisation the predictions are others.
    """
    utterances = spoken(SPEAKERS)
    caches = [
        made_both(tmp_path / "as", utterances),
        made_both(tmp_path / "moved", utterances, voice=shifted),
    ]

    def trained(cache: Path, *more: str) -> NDArray[np.float64]:
        out = tmp_path / f"{cache.name}-{len(more)}"
        settings = tiny(head, cache, out, "ema=0", *more)
        return probabilities(rows(train_head(settings)))

    both = "speaker_normalisation=speech,text"
    as_they_are, moved = (trained(cache, both) for cache in caches)
    np.testing.assert_allclose(moved, as_they_are, atol=1e-3)
    assert np.abs(trained(caches[1]) - trained(caches[0])).max() > 0.05


def test_a_run_says_that_it_reads_the_utterances_of_test_speakers(tmp_path: Path) -> None:
    utterances = [*spoken(SPEAKERS), make_utterance("train/x", speaker="emil", split="train")]
    cache = made_both(tmp_path / "cache", utterances)
    settings = tiny("linear", cache, tmp_path / "run", "speaker_normalisation=speech")
    run = train_head(settings)
    (note,) = run.metrics["notes"]
    assert "the features of speech are normalised by speaker, 4 in all" in note
    assert "also those of the test part" in note
    assert "utterances of other or unknown speakers (1) are one group" in note
    assert note in str(run)
    config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
    assert config["speaker_normalisation"] == ["speech"]
    again = evaluate(run.path, device="cpu").facts
    assert again["aggregate"] == run.metrics["aggregate"]
    assert note in again["notes"]


def test_what_cannot_be_normalised_is_refused(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", spoken(SPEAKERS, each=9))
    with pytest.raises(UsageError, match="made-up has none: add the column speaker"):
        train_head(tiny("linear", cache, tmp_path / "run", "speaker_normalisation=speech"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"modality of speaker_normalisation 'vision'.*speech"):
        tiny("linear", cache, tmp_path / "run", "speaker_normalisation=vision")


# New clips ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> Path:
    """A run that is tested on session ses01, whose speakers speak nowhere else."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings: TrainSettings = small("linear", filled_cache, out, "epochs=1")
    settings = replace(settings, protocol="hold-out:session=ses01")
    return train_head(settings.with_overrides(["speaker_normalisation=speech"])).path


def test_a_manifest_is_normalised_by_its_own_speakers(
    run: Path, corpus_root: Path, tmp_path: Path
) -> None:
    """``predictions.csv`` is the oracle: it comes from the cache of the run."""
    tested = [u for u in synthetic.load(corpus_root).utterances if u.session == "ses01"]
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        expected = probabilities(list(csv.DictReader(file)))
    manifest = write_manifest(tmp_path / "new.csv", tested)
    predict_many(run, manifest, tmp_path / "out.csv", device="cpu", workers=0)
    found = read_rows(tmp_path / "out.csv")
    np.testing.assert_allclose(probabilities([*found.values()]), expected, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_clips_that_do_not_tell_what_is_usual_are_refused(
    run: Path, corpus_root: Path, tmp_path: Path
) -> None:
    utterance = synthetic.load(corpus_root).utterances[0]
    with pytest.raises(UsageError, match="normalises speech by speaker"):
        predict(run, utterance.audio, device="cpu")
    with pytest.raises(UsageError, match="normalises speech by speaker"):
        Answers(run, device="cpu")
    few = write_manifest(tmp_path / "new.csv", [utterance])
    with pytest.raises(UsageError, match=r"new\.csv' has none: add the column speaker"):
        load_run(run).predict_many(few, tmp_path / "out.csv", device="cpu", workers=0)
