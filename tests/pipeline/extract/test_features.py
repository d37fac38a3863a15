"""Extraction end to end: the cache holds the hidden states of the encoders."""

import numpy as np
import pytest

from mser.cache import FeatureCache
from mser.pipeline.corpora import load_corpus
from mser.pipeline.errors import UsageError
from mser.pipeline.extract.audio import decode, read_clip
from mser.tests.support.extract_runs import assert_all_direct, assert_rounded, direct, entry, run
from mser.tests.support.meld_tree import IDS, SPEECH_IDS, TEXT_IDS, clip


def test_every_feature_of_meld_equals_a_direct_forward_pass(meld_filled, meld_original, encoders):
    folder, _ = meld_filled
    assert set(entry(folder, "speech").ids) == SPEECH_IDS
    assert set(entry(folder, "text").ids) == TEXT_IDS
    left_out = {"speech": IDS - SPEECH_IDS, "text": IDS - TEXT_IDS}
    corpus = load_corpus("meld", meld_original)
    assert_all_direct(folder, corpus, encoders, "meld", left_out)


def test_every_feature_of_the_synthetic_corpus_equals_a_direct_forward_pass(
    filled_cache, corpus_root, encoders
):
    corpus = load_corpus("synthetic", corpus_root)
    for modality in encoders:
        stored = entry(filled_cache, modality, "synthetic")
        assert list(stored.ids) == sorted(utterance.id for utterance in corpus.utterances)
    assert_all_direct(filled_cache, corpus, encoders, "synthetic")


def test_the_manifest_keeps_the_whole_corpus(meld_filled):
    folder, _ = meld_filled
    manifest = FeatureCache(folder).read_manifest("meld", entry(folder, "text").manifest)
    rows = {row["id"]: row for row in manifest.to_pylist()}
    assert set(rows) == IDS
    assert rows["train/dia0_utt1"]["text"] == "You’ve had the time."
    assert rows["train/dia0_utt4"]["audio"] == "train/train_splits/dia0_utt4.mp4"


def test_float32_and_float16_have_separate_entries(meld, filled, encoders):
    speech = {"speech": encoders["speech"]}
    run(meld, filled, speech, dtype="float32")
    half, full = sorted(FeatureCache(filled).entries("meld", "speech"), key=lambda e: e.spec.dtype)
    assert (half.spec.dtype, full.spec.dtype) == ("float16", "float32")
    assert set(full.ids) == SPEECH_IDS
    for id in SPEECH_IDS:
        expected = direct(encoders["speech"], decode(read_clip(clip(meld, id))))
        assert full[id].dtype == np.float32
        error = np.linalg.norm(full[id] - expected, axis=-1)
        assert (error <= 1e-5 * np.linalg.norm(expected, axis=-1)).all()


def test_only_the_chosen_layers_are_stored(meld, encoders, tmp_path):
    run(meld, tmp_path / "cache", {"text": encoders["text"]}, layers="0,2")
    stored = entry(tmp_path / "cache", "text")
    assert stored.spec.layers == (0, 2)
    expected = direct(encoders["text"], "No!")[[0, 2]]
    assert_rounded(stored["train/dia1_utt0"], expected)


@pytest.mark.parametrize(("frames", "size"), [("mean", None), ("3", 3)])
def test_stored_means_are_those_of_all_frames(meld, encoders, tmp_path, frames, size):
    run(meld, tmp_path / "cache", {"text": encoders["text"]}, stored_frames=frames)
    stored = entry(tmp_path / "cache", "text")
    for utterance in load_corpus("meld", meld).utterances:
        if utterance.id in TEXT_IDS:
            states = direct(encoders["text"], utterance.text).astype(np.float64)
            step = size or states.shape[1]
            parts = [states[:, at : at + step] for at in range(0, states.shape[1], step)]
            expected = np.stack([part.mean(axis=1) for part in parts], axis=1)
            assert_rounded(stored[utterance.id], expected.astype(np.float32))


def test_stored_means_have_their_own_entry(meld, filled, encoders):
    text = {"text": encoders["text"]}
    summary = run(meld, filled, text, stored_frames="mean", dry_run=True)
    assert summary.modalities[0].new == 0
    run(meld, filled, text, stored_frames="mean")
    sizes = {len(e[next(iter(e.ids))][0]) for e in FeatureCache(filled).entries("meld", "text")}
    assert len(sizes) == 2
    assert 1 in sizes


@pytest.mark.parametrize("frames", ["0", "1", "-2", "2.5", "median", ""])
def test_other_means_are_refused(meld, encoders, tmp_path, frames):
    with pytest.raises(UsageError, match="give all, mean"):
        run(meld, tmp_path / "cache", {"text": encoders["text"]}, stored_frames=frames)
