"""CREMA-D in the layout of its repository, with the faults of the release."""

from collections import Counter
from pathlib import Path

import pytest

from mser.cache import FeatureCache
from mser.pipeline.corpora import crema_d as corpus_file
from mser.pipeline.corpora import load_corpus
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract.audio import BadClipError, read_clip
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.crema_d_tree import IDS, POINTER, SILENT, TWINS, save_clip, to_pointers
from mser.tests.support.extract_runs import entry, reasons, run


def by_id(root: Path):
    return {utterance.id: utterance for utterance in load_corpus("crema-d", root).utterances}


# Utterances ---------------------------------------------------------------------------------------


def test_every_clip_is_an_utterance(crema_d):
    corpus = load_corpus("crema-d", crema_d)
    assert [utterance.id for utterance in corpus.utterances] == sorted(IDS)
    assert (corpus.name, corpus.protocol) == ("crema-d", "speaker-folds")
    assert corpus.classes == ("anger", "disgust", "fear", "happy", "neutral", "sad")
    assert (corpus.ignored, corpus.notes) == ([], ())
    clips = {utterance.audio for utterance in corpus.utterances}
    assert clips == set((crema_d / "AudioWAV").iterdir())


def test_fields_of_an_utterance(crema_d):
    utterance = by_id(crema_d)["1003_DFA_NEU_XX"]
    assert utterance.text == "Don't forget a jacket"
    assert (utterance.label, utterance.speaker) == ("neutral", "1003")
    for field in ("session", "dialogue", "turn", "split"):
        assert getattr(utterance, field) is None


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
def test_the_sentence_code_gives_the_text(tmp_path, code, text):
    (tmp_path / f"1091_{code}_FEA_XX.wav").write_bytes(b"x")
    (utterance,) = corpus_file.load(tmp_path).utterances
    assert (utterance.text, utterance.label) == (text, "fear")


def test_the_published_counts_cover_all_clips():
    assert sum(corpus_file._PUBLISHED.counts.values()) == 7442
    assert set(corpus_file._PUBLISHED.counts) == set(corpus_file.EMOTIONS.values())


def test_the_folder_of_clips_may_be_given(crema_d):
    assert by_id(crema_d / "AudioWAV") == by_id(crema_d)
    (crema_d / "SentenceFilenames.csv").unlink()
    assert len(by_id(crema_d)) == len(IDS)


def test_an_absent_clip_in_the_table_is_an_utterance(crema_d):
    clip = crema_d / "AudioWAV" / "1004_IEO_HAP_MD.wav"
    clip.unlink()
    assert by_id(crema_d)["1004_IEO_HAP_MD"].audio == clip
    (crema_d / "SentenceFilenames.csv").unlink()
    assert "1004_IEO_HAP_MD" not in by_id(crema_d)


def test_a_clip_with_the_older_form_of_its_level(crema_d):
    clips = crema_d / "AudioWAV"
    (clips / "1004_MTI_SAD_XX.wav").rename(clips / "1004_MTI_SAD_X.wav")
    assert by_id(crema_d)["1004_MTI_SAD_XX"].audio == clips / "1004_MTI_SAD_X.wav"
    save_clip(clips / "1004_MTI_SAD_XX.wav", 1)
    corpus = load_corpus("crema-d", crema_d)
    assert len(corpus.utterances) == len(IDS)
    assert corpus.ignored == [
        (clips / "1004_MTI_SAD_X.wav", "the same clip as 1004_MTI_SAD_XX.wav")
    ]


def test_other_files_among_the_clips_are_listed_with_a_reason(crema_d):
    others = (
        *("1001_ABC_ANG_XX.wav", "1001_IEO_JOY_XX.wav", "1001_IEO_ANG_VL.wav", "01_IEO_ANG_HI.wav"),
        *("1001_IEO_ANG_HI_2.wav", "1001_IEO_ANG_HI.mp3", "notes.txt", "._1001_IEO_ANG_HI.wav"),
    )
    for name in others:
        (crema_d / "AudioWAV" / name).write_bytes(b"x")
    corpus = load_corpus("crema-d", crema_d)
    ignored = {path.name: reason for path, reason in corpus.ignored}
    assert set(ignored) == set(others)
    assert "macOS" in ignored.pop("._1001_IEO_ANG_HI.wav")
    assert set(ignored.values()) == {"not a clip name: ACTOR_SENTENCE_EMOTION_LEVEL.wav"}
    assert len(corpus.utterances) == len(IDS)


def test_a_folder_that_is_not_crema_d(tmp_path):
    with pytest.raises(PipelineError, match=r"is not CREMA-D: it contains no 'AudioWAV' with"):
        corpus_file.load(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*: give the folder of crema-d"):
        load_corpus("crema-d", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"Stimulus_Number","Name"\n1,"1001_IEO_ANG_HI"\n', "has no column 'Filename'"),
        (
            b'"Stimulus_Number","Filename"\n1,"1001_IEO_ANG"\n',
            "line 2: its Filename is not",
        ),
        (b'"Stimulus_Number","Filename"\n1,"\xff"\n', "is not UTF-8"),
    ],
)
def test_a_table_of_clips_that_is_not_from_the_release(crema_d, content, words):
    (crema_d / "SentenceFilenames.csv").write_bytes(content)
    with pytest.raises(PipelineError, match=words) as raised:
        load_corpus("crema-d", crema_d)
    assert "SentenceFilenames.csv" in str(raised.value)


# Git LFS ------------------------------------------------------------------------------------------


def test_a_clone_without_git_lfs_has_a_note(crema_d):
    to_pointers(crema_d, *IDS[:5])
    (note,) = load_corpus("crema-d", crema_d).notes
    assert note == (
        f"5 of {len(IDS)} clips are Git LFS pointers, not audio: run 'git lfs pull' in {crema_d}"
    )


def test_a_file_larger_than_a_pointer_is_a_clip(crema_d):
    (crema_d / "AudioWAV" / f"{IDS[0]}.wav").write_text(POINTER + 1024 * " ")
    assert load_corpus("crema-d", crema_d).notes == ()


def test_a_pointer_is_not_a_clip(tmp_path):
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
    lines = str(summary).splitlines()
    assert f"  git-lfs-pointer ({len(IDS)}):" in lines
    (more,) = (line for line in lines if f"and {len(IDS) - 10} more: see " in line)
    assert Path(more.split("see ")[1]).is_file()
    assert len(lines) < 25

    (crema_d / "AudioWAV" / f"{IDS[0]}.wav").write_bytes(pulled)
    summary = run(crema_d, tmp_path / "cache", speech, "crema-d")
    assert summary.modalities[0].new == 1
    assert IDS[0] not in reasons(summary, "speech")


def test_features_stay_if_a_clip_becomes_a_pointer(crema_d, encoders, tmp_path):
    speech = {"speech": encoders["speech"]}
    run(crema_d, tmp_path / "cache", speech, "crema-d")
    before = set(entry(tmp_path / "cache", "speech", "crema-d").ids)
    to_pointers(crema_d, *IDS[:3])
    summary = run(crema_d, tmp_path / "cache", speech, "crema-d")
    assert set(entry(tmp_path / "cache", "speech", "crema-d").ids) == before
    assert summary.modalities[0].present == len(before)


# From clip to score -------------------------------------------------------------------------------


def test_silent_and_identical_clips_are_reported(crema_d, encoders, tmp_path):
    summary = run(crema_d, tmp_path / "cache", encoders, "crema-d")
    assert reasons(summary, "speech") == {SILENT: "silent"}
    assert reasons(summary, "text") == {}
    assert [modality.new for modality in summary.modalities] == [len(IDS) - 1, len(IDS)]
    assert f"{TWINS[1]} (anger) = {TWINS[0]} (disgust)" in str(summary)
    assert summary.as_json()["identical_clips"] == [
        [{"id": TWINS[1], "label": "anger"}, {"id": TWINS[0], "label": "disgust"}]
    ]
    assert SILENT not in FeatureCache(tmp_path / "cache").open("crema-d", modality="speech")


def test_a_head_is_trained_with_speaker_folds(crema_d, encoders, tmp_path):
    run(crema_d, tmp_path / "cache", encoders, "crema-d")
    settings = TrainSettings(
        "linear",
        "crema-d",
        tmp_path / "cache",
        dict.fromkeys(encoders),
        out=tmp_path / "run",
        device="cpu",
    )
    trained = train_head(settings.with_overrides(["l2=0.1"]))
    assert [fold["fold"] for fold in trained.metrics["folds"]] == [f"fold{n}" for n in range(1, 6)]
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    tested = Counter(line.split(",")[0] for line in lines)
    assert tested == Counter(set(IDS) - {SILENT})
