"""Extraction before any work: a dry run writes nothing, and impossible requests are errors."""

import shutil
from types import SimpleNamespace

import pytest

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract import ExtractSettings
from mser.tests.support.extract_runs import run, shards
from mser.tests.support.meld_tree import ROWS, SPEECH_IDS, TEXT_IDS, clip, save_clip, write_tables


def test_a_dry_run_writes_nothing(meld, encoders, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    summary = run(meld, tmp_path / "cache", encoders, dry_run=True)
    assert sorted(tmp_path.rglob("*")) == before
    speech, text = summary.modalities
    assert (text.new, text.present, text.pending) == (0, 0, len(TEXT_IDS))
    # Only decoding finds silence.
    assert speech.pending >= len(SPEECH_IDS)
    assert speech.total == text.total == len(ROWS)
    assert speech.bytes > 0
    assert f"{text.pending} would be extracted" in str(summary)
    assert "absent (1):\n    dev/dia110_utt7: the file" in str(summary)


def test_a_dry_run_on_a_filled_cache_changes_nothing(meld, filled, encoders):
    save_clip(clip(meld, "dev/dia110_utt7"), "aac 1", 5)
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    summary = run(meld, filled, encoders, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before
    assert [(modality.present, modality.pending) for modality in summary.modalities] == [
        (8, 1),
        (11, 0),
    ]


def test_a_disk_that_is_too_small_is_an_error(meld, encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PipelineError, match=r"0\.0 GB free, .* give another --cache, fewer"):
        run(meld, tmp_path / "cache", encoders)
    assert shards(tmp_path / "cache") == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": {}}, "no modality is given: give speech, text or vision"),
        ({"encoders": {"speach": "x"}}, "unknown modality 'speach': did you mean 'speech'"),
        ({"dtype": "float61"}, "unknown dtype 'float61': did you mean 'float16'"),
        ({"workers": -1}, "-1 workers: give 0"),
        ({"limit": 0}, "limit = 0: give 1 or more"),
        ({"shard_mib": 0.0}, "give more than 0"),
        ({"shard_mib": float("nan")}, "give a finite number"),
    ],
)
def test_invalid_settings(tmp_path, changes, message):
    facts = {"encoders": {"text": "x"}, **changes}
    with pytest.raises(UsageError, match=message):
        ExtractSettings("meld", tmp_path, tmp_path, **facts)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"manifest": "mine.csv"}, "dataset 'manifest' needs --name NAME"),
        ({"name": "mine"}, "dataset 'manifest' needs --manifest FILE"),
        ({"manifest": "mine.csv", "name": "mine", "root": "."}, "takes no --root"),
    ],
)
def test_a_manifest_needs_its_file_and_a_name_alone(tmp_path, given, message):
    facts = {"encoders": {"text": "x"}, "cache": tmp_path, **given}
    with pytest.raises(UsageError, match=message):
        ExtractSettings("manifest", **facts)


def test_an_unknown_corpus_suggests_the_nearest(encoders, tmp_path):
    with pytest.raises(UsageError, match="unknown dataset 'melt': did you mean 'meld'"):
        run(tmp_path, tmp_path / "cache", encoders, "melt")


def test_an_unknown_device_is_an_error_before_any_work(meld, encoders, tmp_path):
    with pytest.raises(UsageError, match="unknown device 'cpuu'"):
        run(meld, tmp_path / "cache", encoders, device="cpuu")
    assert not (tmp_path / "cache").exists()


def test_a_repeated_id_is_an_error(meld, encoders, tmp_path):
    write_tables(meld, [*ROWS, ROWS[0]])
    with pytest.raises(PipelineError, match="has 1 repeated ids, such as 'train/dia0_utt0'"):
        run(meld, tmp_path / "cache", encoders)
