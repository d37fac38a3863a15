"""A second extraction: only new and changed utterances are computed."""

import numpy as np
import pytest

from mser.cache import CacheError
from mser.cache.storage.local import LocalFolder
from mser.pipeline.corpora import load_corpus
from mser.pipeline.extract import ExtractSettings, extract, readers
from mser.pipeline.extract import runner as extraction_module
from mser.pipeline.extract.audio import decode, read_clip
from mser.pipeline.feature_cache import FeatureCache
from mser.tests.support.extract_runs import (
    assert_all_direct,
    assert_rounded,
    direct,
    entry,
    features,
    ids_of,
    reasons,
    run,
    shards,
)
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


def test_a_second_run_computes_nothing(meld, filled, encoders, monkeypatch):
    before, contents = shards(filled), features(filled, "speech")

    def refuse(job):
        raise AssertionError(f"{job.items} were to be extracted again")

    monkeypatch.setattr(extraction_module, "extract_shard", refuse)
    summary = run(meld, filled, encoders)
    assert shards(filled) == before
    assert [(modality.new, modality.present) for modality in summary.modalities] == [
        (0, 8),
        (0, 11),
    ]
    assert reasons(summary, "speech") == BAD_CLIPS
    assert "nothing new" in str(summary) or "0 new" in str(summary)
    for id, stored in features(filled, "speech").items():
        np.testing.assert_array_equal(stored, contents[id])


def test_only_changed_utterances_are_extracted_again(meld, filled, encoders):
    before = {modality: features(filled, modality) for modality in encoders}
    old_shards = shards(filled)
    save_clip(clip(meld, "train/dia0_utt1"), "aac 2", 99)
    rows = [(*row[:3], "A new text.", *row[4:]) if row[1:3] == (3, 0) else row for row in ROWS]
    write_tables(meld, rows)

    summary = run(meld, filled, encoders)
    assert [modality.new for modality in summary.modalities] == [1, 1]
    new_shards = [path for path in shards(filled) if path not in old_shards]
    assert sorted(ids_of(path) for path in new_shards) == [["test/dia3_utt0"], ["train/dia0_utt1"]]
    assert {path: when for path, when in shards(filled).items() if path in old_shards} == old_shards
    for modality, changed in (("speech", "train/dia0_utt1"), ("text", "test/dia3_utt0")):
        after = features(filled, modality)
        assert set(after) == set(before[modality])
        for id, stored in after.items():
            same = np.array_equal(stored, before[modality][id])
            assert same is (id != changed)
    left_out = {"speech": IDS - SPEECH_IDS, "text": IDS - TEXT_IDS}
    assert_all_direct(filled, load_corpus("meld", meld), encoders, "meld", left_out)


@pytest.mark.parametrize("id", ["train/dia125_utt3", "dev/dia110_utt7", "test/dia2_utt0"])
def test_a_clip_that_is_repaired_is_tried_again(meld, filled, encoders, id):
    save_clip(clip(meld, id), "aac 2", 50)
    summary = run(meld, filled, {"speech": encoders["speech"]})
    assert summary.modalities[0].new == 1
    assert set(entry(filled, "speech").ids) == SPEECH_IDS | {id}
    assert reasons(summary, "speech") == {bad: why for bad, why in BAD_CLIPS.items() if bad != id}
    expected = direct(encoders["speech"], decode(read_clip(clip(meld, id))))
    assert_rounded(entry(filled, "speech")[id], expected)
    assert id not in entry(filled, "speech").quarantine


def test_a_text_that_is_added_later_is_extracted(meld, filled, encoders):
    rows = [(*row[:3], "Here it is.", *row[4:]) if not row[3] else row for row in ROWS]
    write_tables(meld, rows)
    summary = run(meld, filled, {"text": encoders["text"]})
    assert summary.modalities[0].new == 1
    assert set(entry(filled, "text").ids) == IDS
    assert summary.modalities[0].quarantined == []


def test_a_clip_that_was_unreadable_for_a_moment_is_tried_again(
    meld, encoders, tmp_path, monkeypatch
):
    """A network file system may fail for a moment; its files are unchanged afterwards."""
    id = "train/dia0_utt0"

    def fail(path):
        if path == clip(meld, id):
            return read_clip(path.with_name("the server does not answer"))
        return read_clip(path)

    monkeypatch.setattr(readers, "read_clip", fail)
    summary = run(meld, tmp_path / "cache", {"speech": encoders["speech"]})
    assert reasons(summary, "speech")[id] == "absent"
    monkeypatch.undo()
    run(meld, tmp_path / "cache", {"speech": encoders["speech"]})
    assert id in entry(tmp_path / "cache", "speech")


def test_a_limit_takes_the_first_and_a_later_run_adds_the_rest(meld, encoders, tmp_path):
    summary = run(meld, tmp_path / "cache", {"text": encoders["text"]}, limit=3)
    assert summary.modalities[0].total == 3
    first = {"train/dia0_utt0", "train/dia0_utt1", "train/dia0_utt4"}
    assert set(entry(tmp_path / "cache", "text").ids) == first
    summary = run(meld, tmp_path / "cache", {"text": encoders["text"]})
    assert (summary.modalities[0].present, summary.modalities[0].new) == (3, len(TEXT_IDS) - 3)
    assert set(entry(tmp_path / "cache", "text").ids) == TEXT_IDS


# A cache that can only be read -------------------------------------------------------------------


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to write into a local folder of a cache fail."""

    def refuse(self: LocalFolder, *_: object) -> None:
        raise CacheError(f"cannot write {self}: Read-only file system")

    for name in ("write", "create", "commit", "remove"):
        monkeypatch.setattr(LocalFolder, name, refuse)


@pytest.mark.usefixtures("read_only")
def test_a_complete_cache_is_extracted_again_without_writing(meld, filled, encoders):
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    summary = run(meld, filled, encoders)
    assert [modality.new for modality in summary.modalities] == [0, 0]
    assert reasons(summary, "speech") == BAD_CLIPS
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before


@pytest.mark.usefixtures("read_only")
def test_work_in_a_cache_that_can_only_be_read_is_refused(meld, filled, encoders):
    rows = [(*row[:3], "A new text.", *row[4:]) if row[1:3] == (3, 0) else row for row in ROWS]
    write_tables(meld, rows)
    with pytest.raises(CacheError, match="Read-only file system"):
        run(meld, filled, {"text": encoders["text"]})


def test_a_second_run_brings_new_columns_into_an_old_cache(tmp_path, encoders, monkeypatch):
    """Attributes and votes that an older manifest did not have; nothing is encoded again."""
    manifest, cache = tmp_path / "own.csv", tmp_path / "cache"
    text = {"text": encoders["text"]}
    settings = ExtractSettings("manifest", None, cache, text, manifest, "own", workers=0)
    manifest.write_text("id,text,label\na,one,happy\nb,two,sad\n")
    extract(settings)
    before = shards(cache)
    old = FeatureCache(cache).corpus("own")
    assert "valence" not in old.columns or set(old.valence) == {None}

    monkeypatch.setattr(extraction_module, "extract_shard", None)
    manifest.write_text(
        "id,text,label,valence,attribute:calm,votes:happy,votes:sad\n"
        "a,one,happy,4.5,2,3,1\nb,two,sad,,1,0,4\n"
    )
    (summary,) = extract(settings).modalities
    assert (summary.new, summary.present) == (0, 2)
    assert shards(cache) == before
    corpus = FeatureCache(cache).corpus("own")
    assert list(corpus.valence) == [4.5, None]
    assert list(corpus.calm) == [2, 1]
    assert [(row["votes:happy"], row["votes:sad"]) for row in corpus] == [(3, 1), (0, 4)]
