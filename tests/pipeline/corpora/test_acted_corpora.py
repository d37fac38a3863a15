"""RAVDESS, EmoDB and ESD in the layouts of their releases, with the traps of their copies."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from mser.pipeline.corpora import Corpus, load_corpus
from mser.pipeline.errors import PipelineError
from mser.tests.support.corpus_trees import (
    ESD_TEXTS,
    touch,
    write_emodb,
    write_esd,
    write_ravdess,
)


def by_id(corpus: Corpus):
    return {utterance.id: utterance for utterance in corpus.utterances}


def reasons(corpus: Corpus) -> dict[str, str]:
    return {path.name: reason for path, reason in corpus.ignored}


# RAVDESS ------------------------------------------------------------------------------------------


def test_ravdess_reads_the_file_names(tmp_path: Path) -> None:
    corpus = load_corpus("ravdess", write_ravdess(tmp_path))
    assert len(corpus.utterances) == 2 * 8 * 2
    assert (corpus.protocol, len(corpus.classes)) == ("speaker-folds", 8)
    assert reasons(corpus) == {"03-02-05-01-01-01-01.wav": "a song"}
    utterance = by_id(corpus)["03-01-08-01-02-01-24"]
    assert (utterance.label, utterance.speaker) == ("surprised", "24")
    assert utterance.text == "Dogs are sitting by the door"
    assert set(corpus.columns["intensity"].values()) == {"normal"}


def test_calm_is_a_class_or_neutral(tmp_path: Path) -> None:
    corpus = load_corpus("ravdess", write_ravdess(tmp_path))
    count = {name: Counter(u.label for u in corpus.in_classes(name).utterances) for name in "87"}
    assert (count["8"]["calm"], count["8"]["neutral"]) == (4, 4)
    assert (count["7"]["calm"], count["7"]["neutral"]) == (0, 8)


def test_the_second_copy_of_a_ravdess_clip_is_ignored(tmp_path: Path) -> None:
    write_ravdess(tmp_path)
    shutil.copytree(tmp_path / "Actor_24", tmp_path / "audio_speech_actors_01-24" / "Actor_24")
    corpus = load_corpus("ravdess", tmp_path)
    assert len(corpus.utterances) == 32
    assert by_id(corpus)["03-01-01-01-01-01-24"].audio == (
        tmp_path / "Actor_24" / "03-01-01-01-01-01-24.wav"
    )
    assert reasons(corpus)["03-01-01-01-01-01-24.wav"].startswith("the same clip as Actor_24")


def test_a_ravdess_video_counts_only_if_it_has_sound_and_no_audio_file(tmp_path: Path) -> None:
    names = ("01-01-03-02-01-01-07", "02-01-03-02-01-01-07", "01-01-04-01-01-01-07")
    touch(*(tmp_path / "Actor_07" / f"{name}.mp4" for name in names))
    touch(tmp_path / "Actor_07" / "03-01-04-01-01-01-07.wav")
    corpus = load_corpus("ravdess", tmp_path)
    audio = {id: u.audio and u.audio.suffix for id, u in by_id(corpus).items()}
    assert audio == {"03-01-03-02-01-01-07": ".mp4", "03-01-04-01-01-01-07": ".wav"}
    assert corpus.columns["intensity"]["03-01-03-02-01-01-07"] == "strong"
    assert reasons(corpus)["02-01-03-02-01-01-07.mp4"] == "a video without sound"


# EmoDB --------------------------------------------------------------------------------------------


def test_emodb_reads_speaker_sentence_and_emotion(tmp_path: Path) -> None:
    corpus = load_corpus("emodb", write_emodb(tmp_path))
    assert [u.label for u in corpus.utterances if u.speaker == "16"] == [
        *("fear", "disgust", "happiness", "boredom", "neutral", "sadness", "anger")
    ]
    assert {u.text for u in corpus.utterances} == {"Das will sie am Mittwoch abgeben."}
    assert corpus.protocol == "leave-one-speaker-out"


def test_emodb_ignores_names_of_other_recordings(tmp_path: Path) -> None:
    write_emodb(tmp_path)
    touch(*(tmp_path / "wav" / name for name in ("03a03Wa.wav", "07a01Wa.wav", "._03a02Wa.wav")))
    touch(tmp_path / "wav" / "03a02Wa.flac")  # beside its .wav
    corpus = load_corpus("emodb", tmp_path)
    assert len(corpus.utterances) == 14
    assert len(corpus.ignored) == 4


# ESD ----------------------------------------------------------------------------------------------


def test_esd_has_the_parts_of_its_folders(tmp_path: Path) -> None:
    corpus = load_corpus("esd", write_esd(tmp_path))
    assert corpus.protocol == "official"
    assert Counter(u.split for u in corpus.utterances) == {
        "train": 20, "validation": 20, "test": 20
    }  # fmt: skip
    assert Counter(u.label for u in corpus.utterances) == dict.fromkeys(corpus.classes, 12)
    assert Counter(corpus.columns["language"].values()) == {"Mandarin": 30, "English": 30}


def test_esd_texts_are_read_in_each_encoding(tmp_path: Path) -> None:
    corpus = load_corpus("esd", write_esd(tmp_path))
    assert {(u.speaker, u.text) for u in corpus.utterances} == set(ESD_TEXTS.items())


def test_the_emotion_is_never_a_part_of_an_esd_text(tmp_path: Path) -> None:
    path = write_esd(tmp_path) / "0011" / "0011.txt"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\tAngry", b"\tAngry ").replace(b"\tSad", b"\tSad\t"))
    assert path.read_bytes() != content
    corpus = load_corpus("esd", tmp_path)
    assert {u.text for u in corpus.utterances if u.speaker == "0011"} == {ESD_TEXTS["0011"]}


def test_esd_without_folders_of_parts_is_split_by_speaker(tmp_path: Path) -> None:
    corpus = load_corpus("esd", write_esd(tmp_path / "Emotion Speech Dataset", parts=False).parent)
    assert (corpus.protocol, len(corpus.utterances)) == ("speaker-folds", 20)
    assert {u.split for u in corpus.utterances} == {None}


def test_an_esd_clip_of_another_speaker_is_ignored(tmp_path: Path) -> None:
    write_esd(tmp_path)
    touch(tmp_path / "0011" / "Sad" / "train" / "0012_000001.wav")
    corpus = load_corpus("esd", tmp_path)
    assert reasons(corpus) == {"0012_000001.wav": "not a clip of speaker 0011"}


def test_a_missing_file_of_texts_is_one_sentence(tmp_path: Path) -> None:
    (write_esd(tmp_path) / "0002" / "0002.txt").unlink()
    with pytest.raises(PipelineError, match=r"0002\.txt is missing, which has the texts of"):
        load_corpus("esd", tmp_path)


@pytest.mark.parametrize("name", ["ravdess", "emodb", "esd"])
def test_an_empty_folder_is_not_the_corpus(tmp_path: Path, name: str) -> None:
    with pytest.raises(PipelineError, match=r"is not (the speech part of )?\w+: it contains no"):
        load_corpus(name, tmp_path)


@pytest.mark.parametrize(("name", "clips"), [("ravdess", 1440), ("emodb", 535), ("esd", 35_000)])
def test_the_published_counts_cover_all_clips(tmp_path: Path, name: str, clips: int) -> None:
    write = {"ravdess": write_ravdess, "emodb": write_emodb, "esd": write_esd}[name]
    corpus = load_corpus(name, write(tmp_path))
    (published,) = corpus.published
    assert sum(published.counts.values()) == clips
    assert set(published.counts) == set(corpus.classes)
