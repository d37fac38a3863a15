"""Quarantine: unusable utterances are excluded and named; a strict run ends at the first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mser.cache import FeatureCache
from mser.pipeline.errors import PipelineError
from mser.tests.support.extract_runs import entry, reasons, run
from mser.tests.support.meld_tree import (
    BAD_CLIPS,
    IDS,
    ROWS,
    SPEECH_IDS,
    TEXT_IDS,
    clip,
    save_clip,
    write_tables,
)


def test_bad_utterances_are_in_quarantine_with_their_reason(meld_filled):
    folder, summary = meld_filled
    assert reasons(summary, "speech") == BAD_CLIPS
    assert reasons(summary, "text") == {"test/dia0_utt1": "no-text"}
    for modality in ("speech", "text"):
        kept = {id: bad.reason for id, bad in entry(folder, modality).quarantine.items()}
        assert kept == reasons(summary, modality)


def test_the_summary_names_all_excluded_utterances(meld_filled, meld_original):
    folder, summary = meld_filled
    text = str(summary)
    assert "speech in quarantine, with the reason (4):" in text
    assert "text in quarantine, with the reason (1):" in text
    for id, reason in {**BAD_CLIPS, "test/dia0_utt1": "no-text"}.items():
        assert f"\n  {reason} (1):\n    {id}: " in text
    assert "final_videos_testdia1_utt0.mp4" in text
    assert "._dia0_utt0.mp4" in text
    assert "12 utterances" in text
    assert "of 12 utterances, 8 are in the cache: 8 new" in text
    for modality, stored in zip(summary.modalities, (SPEECH_IDS, TEXT_IDS), strict=True):
        assert (modality.new, modality.present, modality.pending) == (len(stored), 0, 0)
        assert modality.total == len(ROWS)
        assert Path(modality.entry).is_dir()
    facts = json.loads(json.dumps(summary.as_json()))
    assert (facts["dataset"], facts["utterances"]) == ("meld", 12)
    assert facts["root"] == str(meld_original)
    assert facts["cache"] == str(folder)
    assert len(facts["ignored"]) == 2


def test_a_clip_shorter_than_a_frame_is_in_quarantine(meld, encoders, tmp_path):
    save_clip(clip(meld, "test/dia3_utt0"), "6 ms", 3)
    summary = run(meld, tmp_path / "cache", {"speech": encoders["speech"]})
    assert reasons(summary, "speech") == {**BAD_CLIPS, "test/dia3_utt0": "too-short"}
    assert "6 ms of audio are shorter than one frame" in str(summary)
    assert set(entry(tmp_path / "cache", "speech").ids) == SPEECH_IDS - {"test/dia3_utt0"}


def test_a_text_without_a_token_does_not_end_the_run(meld, encoders, tmp_path):
    rows = [(*row[:3], "\u200b", *row[4:]) if not row[3] else row for row in ROWS]
    write_tables(meld, rows)
    summary = run(meld, tmp_path / "cache", {"text": encoders["text"]})
    assert summary.modalities[0].new >= len(TEXT_IDS)


def test_features_too_large_for_float16_go_to_quarantine_with_advice(meld, encoders, tmp_path):
    loud = shutil.copytree(encoders["text"], tmp_path / "loud-bert")
    weights = load_file(loud / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("layer.3.output.LayerNorm.weight"))
    weights[name] *= 1e6
    save_file(weights, loud / "model.safetensors", metadata={"format": "pt"})

    summary = run(meld, tmp_path / "cache", {"text": str(loud)})
    found = {bad.id: bad for bad in summary.modalities[0].quarantined}
    assert set(found) == IDS
    assert found["train/dia0_utt0"].reason == "not-finite"
    assert "extract with --dtype float32" in found["train/dia0_utt0"].detail
    assert "--dtype float32" in str(summary)

    summary = run(meld, tmp_path / "cache", {"text": str(loud)}, dtype="float32")
    assert summary.modalities[0].new == len(TEXT_IDS)
    (full,) = (e for e in FeatureCache(tmp_path / "cache").entries("meld") if len(e))
    assert np.abs(full["train/dia0_utt0"]).max() > np.finfo(np.float16).max


def test_an_encoder_that_returns_nan(meld, encoders, tmp_path):
    broken = shutil.copytree(encoders["text"], tmp_path / "broken-bert")
    weights = load_file(broken / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("layer.3.output.LayerNorm.weight"))
    weights[name][0] = np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    summary = run(meld, tmp_path / "cache", {"text": str(broken)}, limit=2)
    for bad in summary.modalities[0].quarantined:
        assert (bad.reason, bad.detail) == (
            "not-finite",
            "its features contain infinite values or NaN",
        )
    assert len(summary.modalities[0].quarantined) == 2


@pytest.mark.parametrize(
    "fault",
    ["silent", "absent", "no-audio"],
)
def test_a_strict_run_ends_at_a_bad_clip(meld, encoders, tmp_path, fault):
    for seed, (split, dialogue, turn, _, _, what) in enumerate(ROWS):
        if what in ("corrupt", "absent", "no-audio", "silent") and what != fault:
            save_clip(clip(meld, f"{split}/dia{dialogue}_utt{turn}"), "aac 1", seed)
    id = next(id for id, reason in BAD_CLIPS.items() if reason == fault)
    with pytest.raises(PipelineError, match=f"{id}: {fault}: .*strict"):
        run(meld, tmp_path / "cache", {"speech": encoders["speech"]}, strict=True)


def test_a_strict_run_without_a_fault_succeeds(corpus_root, encoders, tmp_path):
    summary = run(corpus_root, tmp_path / "cache", encoders, "synthetic", limit=4, strict=True)
    assert [modality.new for modality in summary.modalities] == [4, 4]
