"""What a dry run says of a corpus: what is there, what is not, and what was published."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mser.pipeline.corpora import CORPORA, synthetic
from mser.pipeline.corpora import meld as meld_file
from mser.tests.support.extract_runs import run
from mser.tests.support.meld_tree import BAD_CLIPS, clip


@pytest.fixture(scope="module")
def looked_at(meld_original, encoders, tmp_path_factory):
    """The summary of a dry run on MELD, and its cache. Do not change them."""
    folder = tmp_path_factory.mktemp("looked") / "cache"
    return run(meld_original, folder, encoders, dry_run=True), folder


def manifest(folder: Path, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Settings of the corpus 'mine' of such rows, which have clips of their own."""
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"manifest": path, "name": "mine"}


def test_what_is_there_is_counted(looked_at):
    lines = str(looked_at[0]).splitlines()
    assert lines[0].startswith("meld: 12 utterances below ")
    assert re.search(r", 0\.1 min of audio$", lines[0])
    counted = "neutral 0, surprise 0, fear 0, sadness 0, joy 12, disgust 0, anger 0"
    assert f"  by label: {counted}" in lines
    assert "  by split: train 5, validation 3, test 4" in lines
    speakers = "Joey 1, The Interviewer 1, Joey/Drake 1, All 1, Ross 1, Phoebe 1, Monica 2, Mark 1"
    assert f"  by speaker: {speakers}, Rachel 3" in lines
    assert not any(line.startswith("  by session") for line in lines)


def test_what_is_published_stands_beside_it(looked_at):
    said = str(looked_at[0])
    assert "published by split (Poria et al., ACL 2019), and here:" in said
    for split, theirs, ours in (("train", 9989, 5), ("validation", 1109, 3), ("test", 2610, 4)):
        assert re.search(rf"\n    {split} +{theirs} +{ours}  differs\n", said)
    (facts,) = looked_at[0].as_json()["published"]
    assert facts == {
        "source": "Poria et al., ACL 2019",
        "by": "split",
        "classes": None,
        "published": {"train": 9989, "validation": 1109, "test": 2610},
        "here": {"train": 5, "validation": 3, "test": 4},
        "differs": True,
    }


def test_a_count_that_is_as_published_has_no_mark(meld_original, encoders, tmp_path, monkeypatch):
    ours = {"train": 5, "validation": 3, "test": 5}
    monkeypatch.setattr(
        meld_file, "_PUBLISHED", type(meld_file._PUBLISHED)("a paper", "split", ours)
    )
    said = str(run(meld_original, tmp_path, encoders, dry_run=True))
    assert re.search(r"\n    train +5 +5\n    validation +3 +3\n    test +5 +4  differs\n", said)


def test_what_is_missing_or_unreadable_is_named_by_its_reason(looked_at):
    summary, folder = looked_at
    said = str(summary)
    found = {id: why for id, why in BAD_CLIPS.items() if why != "silent"}  # found by decoding
    assert f"speech in quarantine, with the reason ({len(found)}):" in said
    for id, why in found.items():
        assert f"\n  {why} (1):\n    {id}: " in said
    speech, text = summary.as_json()["modalities"]
    assert speech["reasons"] == {"unreadable": 1, "no-audio": 1, "absent": 1}
    assert text["reasons"] == {"no-text": 1}
    assert not folder.exists()


def test_the_bytes_are_those_that_the_run_then_writes(looked_at, meld_original, encoders, tmp_path):
    summary = looked_at[0]
    done = run(meld_original, tmp_path / "cache", encoders)
    assert done.bytes == summary.bytes == sum(one.bytes for one in summary.modalities)
    assert f"nothing is written, and {summary.bytes / 1e6:.1f} MB would be" in str(summary)
    assert "dry run" not in str(done)
    assert "  by label:" not in str(done)


def test_the_json_says_the_same(looked_at):
    facts = json.loads(json.dumps(looked_at[0].as_json()))
    assert facts["counts"]["split"] == {"train": 5, "validation": 3, "test": 4}
    assert facts["counts"]["label"]["joy"] == 12
    assert facts["counts"]["speaker"]["Rachel"] == 3
    assert "session" not in facts["counts"]
    assert (facts["utterances"], facts["asked"]) == (12, 12)
    assert facts["identical_clips"] == []
    assert facts["bytes"] == looked_at[0].bytes


def test_only_some_are_asked_for(meld_original, encoders, tmp_path):
    summary = run(meld_original, tmp_path, {"text": encoders["text"]}, dry_run=True, limit=3)
    first = str(summary).splitlines()[0]
    assert first.startswith("meld: 12 utterances below ")
    assert first.endswith(", of which 3 are asked for")
    assert summary.as_json()["asked"] == 3
    assert "  by split: train 5, validation 3, test 4" in str(summary)


def test_many_speakers_are_not_listed(encoders, tmp_path):
    rows = [{"id": f"u{n}", "text": "Hm.", "speaker": n % 13, "session": n % 12} for n in range(40)]
    text = {"text": encoders["text"]}
    settings = manifest(tmp_path, rows)
    summary = run(None, tmp_path / "cache", text, "manifest", dry_run=True, **settings)
    assert "  by speaker: 13 speakers, 3 to 4 utterances each\n" in str(summary)
    assert "  by session: 0 4, 1 4, 2 4, 3 4, 4 3, 5 3, " in str(summary)
    assert len(summary.as_json()["counts"]["speaker"]) == 13


def test_what_nothing_is_known_of_is_counted_too(encoders, tmp_path):
    rows = [
        {"id": "a", "text": "Hm.", "label": "sad", "speaker": "Ann"},
        {"id": "b", "text": "Hm."},
        {"id": "c", "text": "Hm."},
    ]
    settings = manifest(tmp_path, rows)
    text = {"text": encoders["text"]}
    said = str(run(None, tmp_path / "cache", text, "manifest", dry_run=True, **settings))
    assert "  by label: sad 1, no label 2\n" in said
    assert "  by speaker: Ann 1, unknown 2\n" in said


def test_many_of_one_reason_are_counted_and_ten_of_them_named(encoders, tmp_path):
    rows = [
        *({"id": f"gone{n:02}", "audio": f"gone{n}.wav"} for n in range(25)),
        *({"id": f"none{n:02}"} for n in range(3)),
    ]
    settings = manifest(tmp_path, rows)
    speech = {"speech": encoders["speech"]}
    for dry_run in (True, False):
        summary = run(None, tmp_path / "cache", speech, "manifest", dry_run=dry_run, **settings)
        said = str(summary)
        assert "speech in quarantine, with the reason (28):\n  absent (28):\n" in said
        assert [f"gone{n:02}: " in said for n in range(25)] == [True] * 10 + [False] * 15
        (more,) = re.findall(r"\n    and 18 more: (.*)", said)
        assert len(summary.as_json()["modalities"][0]["quarantined"]) == 28
        if dry_run:
            assert more == "--json lists them"
        else:
            listed = Path(more.removeprefix("see ")).read_text().splitlines()
            assert len(listed) == 28


def test_many_files_that_are_no_clips_are_counted(meld, encoders, tmp_path):
    folder = clip(meld, "train/dia0_utt0").parent
    for n in range(30):
        (folder / f"._dia{n}_utt0.mp4").write_bytes(b"x")
    summary = run(meld, tmp_path / "cache", {"text": encoders["text"]}, dry_run=True)
    assert "  a macOS companion file, not a clip (30):\n" in str(summary)
    assert "    and 20 more: --json lists them\n" in str(summary)
    assert len(summary.as_json()["ignored"]) == 31


@pytest.mark.parametrize("dry_run", [True, False])
def test_identical_clips_under_two_labels_are_named(corpus_root, encoders, tmp_path, dry_run):
    source = synthetic.load(corpus_root).utterances[0].audio
    assert source is not None
    rows = []
    for id, label in (("a", "sad"), ("b", "angry"), ("c", None), ("d", "sad")):
        shutil.copy(source, tmp_path / f"{id}.wav")
        rows.append({"id": id, "audio": f"{id}.wav", "label": label, "text": "Hm."})
    (tmp_path / "d.wav").write_bytes(source.read_bytes() + b"\0")
    settings = manifest(tmp_path, rows)
    summary = run(None, tmp_path / "cache", encoders, "manifest", dry_run=dry_run, **settings)
    assert "identical clips under different labels (1):\n  a (sad) = b (angry) = c (no label)" in (
        str(summary)
    )
    (group,) = summary.as_json()["identical_clips"]
    assert [one["id"] for one in group] == ["a", "b", "c"]


def test_of_many_identical_clips_some_are_named(corpus_root, encoders, tmp_path):
    clip = str(synthetic.load(corpus_root).utterances[0].audio)
    rows = [{"id": f"u{n}", "audio": clip, "label": "sad" if n else "calm"} for n in range(9)]
    settings = manifest(tmp_path, rows)
    speech = {"speech": encoders["speech"]}
    summary = run(None, tmp_path / "cache", speech, "manifest", dry_run=True, **settings)
    assert "\n  u0 (calm) = u1 (sad) = u2 (sad) = u3 (sad) = u4 (sad) = u5 (sad) and 3 more" in (
        str(summary)
    )
    (group,) = summary.as_json()["identical_clips"]
    assert len(group) == 9


def test_classes_are_counted_in_every_class_set(corpus_root, encoders, tmp_path, monkeypatch):
    whole = synthetic.load(corpus_root)
    sets = {"2": {"angry": "high", "happy": "high", "sad": "low"}}
    monkeypatch.setitem(CORPORA, "synthetic", lambda _: replace(whole, class_sets=sets))
    summary = run(corpus_root, tmp_path, {"text": encoders["text"]}, "synthetic", dry_run=True)
    labels = summary.as_json()["counts"]["label"]
    assert sum(labels.values()) == 96
    high, low = labels["angry"] + labels["happy"], labels["sad"]
    assert summary.as_json()["counts"]["classes"] == {"2": {"high": high, "low": low}}
    left = labels["neutral"]
    assert f"  by 2 classes: high {high}, low {low}, in none of them {left}\n" in str(summary)
