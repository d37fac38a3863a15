"""CREMA-D's layout with the faults of the release."""

from collections import Counter
from pathlib import Path

import pytest

from mser.cache import FeatureCache
from mser.pipeline.corpora import crema_d as corpus_file
from mser.pipeline.corpora import load_corpus
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract.audio import BadClipError, read_clip
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support import crema_d_tree
from mser.tests.support.crema_d_tree import IDS, POINTER, SILENT, TWINS, save_clip, to_pointers
from mser.tests.support.extract_runs import entry, reasons, run

crema_d_original = crema_d_tree.crema_d_original
crema_d = crema_d_tree.crema_d


def by_id(root: Path):
    return {one.id: one for one in load_corpus("crema-d", root).utterances}


# What is read -------------------------------------------------------------------------------------


def test_every_clip_is_an_utterance(crema_d):
    corpus = load_corpus("crema-d", crema_d)
    assert [one.id for one in corpus.utterances] == sorted(IDS)
    assert (corpus.name, corpus.protocol) == ("crema-d", "speaker-folds")
    assert corpus.classes == ("anger", "disgust", "fear", "happy", "neutral", "sad")
    assert (corpus.ignored, corpus.notes) == ([], ())
    assert {one.audio for one in corpus.utterances} == set((crema_d / "AudioWAV").iterdir())


def test_fields_of_an_utterance(crema_d):
    one = by_id(crema_d)["1003_DFA_NEU_XX"]
    assert one.text == "Don't forget a jacket"
    assert (one.label, one.speaker) == ("neutral", "1003")
    assert (one.session, one.dialogue, one.turn, one.split) == (None, None, None, None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("IEO", "It's eleven o'clock"),
        ("TIE", "That is exactly what happened"),
        ("IOM", "I'm on my way to the meeting"),
        ("IWW", "I wonder what this is about"),
        ("TAI", "The airplane is almost full"),
        ("MTI", "Maybe tomorrow it will be cold"),
        ("IWL", "I would like a new alarm clock"),
        ("ITH", "I think I have a doctor's appointment"),
        ("DFA", "Don't forget a jacket"),
        ("ITS", "I think I've seen this before"),
        ("TSI", "The surface is slick"),
        ("WSI", "We'll stop in a couple of minutes"),
    ],
)
def test_the_text_is_that_of_the_sentence(tmp_path, code, text):
    (tmp_path / f"1091_{code}_FEA_XX.wav").write_bytes(b"x")
    (one,) = corpus_file.load(tmp_path).utterances
    assert (one.text, one.label) == (text, "fear")


def test_published_counts_are_of_all_clips():
    assert sum(corpus_file._PUBLISHED.counts.values()) == 7442
    assert set(corpus_file._PUBLISHED.counts) == set(corpus_file.EMOTIONS.values())


def test_the_folder_of_clips_may_be_given_itself(crema_d):
    assert by_id(crema_d / "AudioWAV") == by_id(crema_d)
    (crema_d / "SentenceFilenames.csv").unlink()
    assert len(by_id(crema_d)) == len(IDS)


def test_an_absent_clip_that_the_table_names_is_still_an_utterance(crema_d):
    clip = crema_d / "AudioWAV" / "1004_IEO_HAP_MD.wav"
    clip.unlink()
    assert by_id(crema_d)["1004_IEO_HAP_MD"].audio == clip
    (crema_d / "SentenceFilenames.csv").unlink()
    assert "1004_IEO_HAP_MD" not in by_id(crema_d)


def test_a_clip_whose_level_has_lost_a_letter(crema_d):
    clips = crema_d / "AudioWAV"
    (clips / "1004_MTI_SAD_XX.wav").rename(clips / "1004_MTI_SAD_X.wav")
    assert by_id(crema_d)["1004_MTI_SAD_XX"].audio == clips / "1004_MTI_SAD_X.wav"
    save_clip(clips / "1004_MTI_SAD_XX.wav", 1)
    corpus = load_corpus("crema-d", crema_d)
    assert len(corpus.utterances) == len(IDS)
    assert corpus.ignored == [
        (clips / "1004_MTI_SAD_X.wav", "the same clip as 1004_MTI_SAD_XX.wav")
    ]


def test_what_lies_among_the_clips_is_named_with_its_reason(crema_d):
    strange = (
        *("1001_ABC_ANG_XX.wav", "1001_IEO_JOY_XX.wav", "1001_IEO_ANG_VL.wav", "01_IEO_ANG_HI.wav"),
        *("1001_IEO_ANG_HI_2.wav", "1001_IEO_ANG_HI.mp3", "notes.txt", "._1001_IEO_ANG_HI.wav"),
    )
    for name in strange:
        (crema_d / "AudioWAV" / name).write_bytes(b"x")
    corpus = load_corpus("crema-d", crema_d)
    ignored = {path.name: why for path, why in corpus.ignored}
    assert set(ignored) == set(strange)
    assert "macOS" in ignored.pop("._1001_IEO_ANG_HI.wav")
    assert set(ignored.values()) == {"no clip's name: ACTOR_SENTENCE_EMOTION_LEVEL.wav"}
    assert len(corpus.utterances) == len(IDS)


def test_a_folder_that_is_not_crema_d(tmp_path):
    with pytest.raises(PipelineError, match=r"is not CREMA-D: 'AudioWAV' with clips such as 1001_"):
        corpus_file.load(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*: give the folder of crema-d"):
        load_corpus("crema-d", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"Stimulus_Number","Name"\n1,"1001_IEO_ANG_HI"\n', "line 2, names no clip"),
        (b'"Stimulus_Number","Filename"\n1,"1001_IEO_ANG"\n', "line 2, names no clip"),
        (b'"Stimulus_Number","Filename"\n1,"\xff"\n', "is not CREMA-D's"),
    ],
)
def test_a_table_that_is_not_the_release_s(crema_d, content, words):
    (crema_d / "SentenceFilenames.csv").write_bytes(content)
    with pytest.raises(PipelineError, match=words) as raised:
        load_corpus("crema-d", crema_d)
    assert "SentenceFilenames.csv" in str(raised.value)


# Git LFS ------------------------------------------------------------------------------------------


def test_a_clone_without_git_lfs_is_said_to_be_one(crema_d):
    to_pointers(crema_d, *IDS[:5])
    (note,) = load_corpus("crema-d", crema_d).notes
    assert note == (
        f"5 of {len(IDS)} clips are Git LFS pointers, not audio: run 'git lfs pull' in {crema_d}"
    )


def test_a_large_clip_is_not_read_to_look_for_pointers(crema_d):
    (crema_d / "AudioWAV" / f"{IDS[0]}.wav").write_text(POINTER + 1024 * " ")
    assert load_corpus("crema-d", crema_d).notes == ()


def test_a_pointer_is_no_clip_of_any_corpus(tmp_path):
    (tmp_path / "any.mp4").write_text(POINTER)
    with pytest.raises(BadClipError) as raised:
        read_clip(tmp_path / "any.mp4")
    assert raised.value.reason == "git-lfs-pointer"
    assert str(tmp_path / "any.mp4") in raised.value.detail
    assert "git lfs pull" in raised.value.detail


def test_pointers_go_to_quarantine_until_they_are_pulled(crema_d, encoders, tmp_path):
    pulled = (crema_d / "AudioWAV" / f"{IDS[0]}.wav").read_bytes()
    to_pointers(crema_d)
    speech = {"speech": encoders["speech"]}
    summary = run(crema_d, tmp_path / "cache", speech, "crema-d")
    assert reasons(summary, "speech") == dict.fromkeys(sorted(IDS), "git-lfs-pointer")
    words = str(summary).splitlines()
    assert f"  git-lfs-pointer ({len(IDS)}):" in words
    (more,) = (line for line in words if f"and {len(IDS) - 10} more: see " in line)
    assert Path(more.split("see ")[1]).is_file()
    assert len(words) < 25

    (crema_d / "AudioWAV" / f"{IDS[0]}.wav").write_bytes(pulled)
    summary = run(crema_d, tmp_path / "cache", speech, "crema-d")
    assert summary.modalities[0].new == 1
    assert IDS[0] not in reasons(summary, "speech")


def test_features_stay_when_a_clip_becomes_a_pointer(crema_d, encoders, tmp_path):
    speech = {"speech": encoders["speech"]}
    run(crema_d, tmp_path / "cache", speech, "crema-d")
    before = set(entry(tmp_path / "cache", "speech", "crema-d").ids)
    to_pointers(crema_d, *IDS[:3])
    summary = run(crema_d, tmp_path / "cache", speech, "crema-d")
    assert set(entry(tmp_path / "cache", "speech", "crema-d").ids) == before
    assert summary.modalities[0].present == len(before)


# The release's faults, from clip to score ---------------------------------------------------------


def test_silence_and_twins_are_named(crema_d, encoders, tmp_path):
    summary = run(crema_d, tmp_path / "cache", encoders, "crema-d")
    assert reasons(summary, "speech") == {SILENT: "silent"}
    assert reasons(summary, "text") == {}
    assert [one.new for one in summary.modalities] == [len(IDS) - 1, len(IDS)]
    assert f"{TWINS[1]} (anger) = {TWINS[0]} (disgust)" in str(summary)
    assert summary.as_json()["identical_clips"] == [
        [{"id": TWINS[1], "label": "anger"}, {"id": TWINS[0], "label": "disgust"}]
    ]
    assert SILENT not in FeatureCache(tmp_path / "cache").open("crema-d", modality="speech")


def test_a_head_is_trained_by_folds_of_speakers(crema_d, encoders, tmp_path):
    run(crema_d, tmp_path / "cache", encoders, "crema-d")
    settings = TrainSettings(
        "linear",
        "crema-d",
        tmp_path / "cache",
        dict.fromkeys(encoders),
        out=tmp_path / "run",
        device="cpu",
    )
    trained = train_head(settings.with_overrides(["epochs=1"]))
    assert [fold["fold"] for fold in trained.metrics["folds"]] == [f"fold{n}" for n in range(1, 6)]
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    tested = Counter(line.split(",")[0] for line in lines)
    assert tested == Counter(set(IDS) - {SILENT})
