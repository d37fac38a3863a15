"""MSP-Podcast and CMU-MOSEI in the layouts of their releases."""

from collections import Counter
from pathlib import Path

import pytest

from mser.pipeline.corpora import load_corpus
from mser.pipeline.errors import PipelineError
from mser.pipeline.protocols.protocols import split_corpus
from mser.tests.support.corpus_trees import (
    MOSEI_VIDEOS,
    MSP_ROWS,
    touch,
    write_mosei,
    write_msp_podcast,
)


def labels(corpus, classes: str | None = None):
    return {u.id: u.label for u in corpus.in_classes(classes).utterances}


# MSP-Podcast --------------------------------------------------------------------------------------


def test_msp_podcast_reads_the_consensus_labels(tmp_path: Path) -> None:
    corpus = load_corpus("msp-podcast", write_msp_podcast(tmp_path))
    by_id = {u.id: u for u in corpus.utterances}
    first = by_id["MSP-PODCAST_0001_0008"]
    assert (first.label, first.speaker, first.split) == ("neutral", "30", "train")
    assert first.text == "So that is it."
    assert first.audio == tmp_path / "Audios" / "MSP-PODCAST_0001_0008.wav"
    assert first.attributes == {"arousal": 2.2, "valence": 4.0, "dominance": 2.6}
    assert by_id["MSP-PODCAST_test3_0001"].attributes == {}
    assert corpus.columns["podcast"]["MSP-PODCAST_0003_0002_0001"] == "0003"
    assert (corpus.protocol, corpus.notes, corpus.ignored) == ("official", (), [])


def test_unknown_speakers_are_not_one_speaker(tmp_path: Path) -> None:
    corpus = load_corpus("msp-podcast", write_msp_podcast(tmp_path))
    speakers = Counter(u.speaker for u in corpus.utterances)
    assert speakers[None] == 3  # two unknown, and one of Test3
    assert "Unknown" not in speakers


def test_other_and_no_agreement_are_classes_only_if_they_are_asked_for(tmp_path: Path) -> None:
    corpus = load_corpus("msp-podcast", write_msp_podcast(tmp_path))
    other, none = "MSP-PODCAST_0003_0001", "MSP-PODCAST_0002_0001"
    assert (labels(corpus)[other], labels(corpus)[none]) == (None, None)
    assert (labels(corpus, "9")[other], labels(corpus, "9")[none]) == ("other", None)
    assert (labels(corpus, "10")[other], labels(corpus, "10")[none]) == ("other", "no agreement")
    four = {label for label in labels(corpus, "4").values() if label}
    assert four == {"neutral", "angry", "happy", "sad"}


def test_each_test_part_is_a_fold_and_test3_has_no_labels(tmp_path: Path) -> None:
    corpus = load_corpus("msp-podcast", write_msp_podcast(tmp_path))
    test3 = [u for u in corpus.utterances if u.split == "test3"]
    assert [(u.id, u.label, u.speaker) for u in test3] == [("MSP-PODCAST_test3_0001", None, None)]
    usable = [u for u in corpus.in_classes().utterances if u.label is not None]
    folds = {fold.name: fold for fold in split_corpus(usable, "official").folds}
    assert {name: [u.id[12:] for u in fold.test] for name, fold in folds.items()} == {
        "test1": ["0003_0002_0001"],
        "test2": ["0004_0001", "0004_0002"],
    }
    assert folds["test1"].train == folds["test2"].train
    assert [u.id[12:] for u in folds["test1"].validation] == ["0002_0002"]


def test_partitions_with_common_speakers_have_a_note(tmp_path: Path) -> None:
    rows = [*MSP_ROWS, "0005_0001.wav,A,6,2,5,30,Male,Test1"]
    (note,) = load_corpus("msp-podcast", write_msp_podcast(tmp_path, rows)).notes
    assert note.startswith("1 speakers are in both train and test1, such as '30'")


def test_an_older_release_has_another_folder_of_clips(tmp_path: Path) -> None:
    write_msp_podcast(tmp_path / "1.7")
    (tmp_path / "1.7" / "Audios").rename(tmp_path / "1.7" / "Audio")
    touch(tmp_path / "1.7" / "Audio" / "MSP-PODCAST_0009_0001.wav")
    corpus = load_corpus("msp-podcast", tmp_path)
    assert len(corpus.utterances) == len(MSP_ROWS) + 1
    assert [reason for _, reason in corpus.ignored] == ["not in the labels"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0001_0001.wav,Q,4,4,4,1,Male,Train", "line 2: 'Q' is not an emotion of MSP-Podcast"),
        ("0001_0001.wav,N,4,nan,4,1,Male,Train", "line 2: its EmoVal is 'nan', not a number"),
        ("0001_0001.wav,N,x,4,4,1,Male,Train", "line 2: its EmoAct is 'x', not a number"),
        ("0001_0001.wav,N,4,4,4,1,Male,Test", "line 2: 'Test' is not a partition"),
        (".wav,N,4,4,4,1,Male,Train", "line 2: 'MSP-PODCAST_.wav' is not a clip"),
    ],
)
def test_a_wrong_line_of_the_labels_is_one_sentence(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        load_corpus("msp-podcast", write_msp_podcast(tmp_path, [row]))


def test_a_missing_file_of_labels_is_one_sentence(tmp_path: Path) -> None:
    (write_msp_podcast(tmp_path) / "Labels" / "labels_consensus.csv").unlink()
    with pytest.raises(PipelineError, match=r"contains no Labels/labels_consensus\.csv; give"):
        load_corpus("msp-podcast", tmp_path)


# CMU-MOSEI ----------------------------------------------------------------------------------------


def test_mosei_labels_belong_to_the_clip_with_the_same_times(tmp_path: Path) -> None:
    corpus = load_corpus("mosei", write_mosei(tmp_path))
    by_id = {u.id: u for u in corpus.utterances}
    assert labels(corpus) == {
        "-3g5yACwYnA_2": "sad",
        "-3g5yACwYnA_10": "happy",
        "-3g5yACwYnA_11": "neutral",
        "hh04W3xXa5s_0": None,  # happy and angry alike
        "220548_0": "anger",
        "notinfold_0": None,
    }
    assert by_id["-3g5yACwYnA_2"].text == "And then___it ended"
    assert [u.split for u in corpus.utterances if u.dialogue == "220548"] == ["test"]
    both = by_id["hh04W3xXa5s_0"]
    assert {name for name, strength in both.votes.items() if strength} == {"happy", "anger"}
    assert by_id["-3g5yACwYnA_2"].attributes == {"sentiment": -1}
    assert (by_id["notinfold_0"].votes, by_id["notinfold_0"].attributes) == ({}, {})
    clip = by_id["-3g5yACwYnA_10"].audio
    assert clip == tmp_path / "Raw/Videos/Segmented/Combined/-3g5yACwYnA_10.mp4"
    assert [note.split()[0] for note in corpus.notes] == ["1", "1"]


def test_a_mosei_label_that_is_not_a_number_is_one_sentence(tmp_path: Path) -> None:
    videos = {**MOSEI_VIDEOS, "x": ((0, 0.0, 1.0, "no", (0, 0, float("nan"), 0, 0, 0, 0)),)}
    with pytest.raises(PipelineError, match="a label of video 'x' at 0 s is not a number"):
        load_corpus("mosei", write_mosei(tmp_path, videos))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CMU_MOSEI_Labels.csd", r"contains no 'CMU_MOSEI_Labels\.csd'; give the folder"),
        ("cmu_mosei_std_folds.py", r"contains no 'cmu_mosei_std_folds\.py'; copy it from the SDK"),
    ],
)
def test_a_missing_file_of_mosei_is_one_sentence(tmp_path: Path, name: str, words: str) -> None:
    (write_mosei(tmp_path) / name).unlink()
    with pytest.raises(PipelineError, match=words):
        load_corpus("mosei", tmp_path)


def test_damaged_files_of_mosei_are_one_sentence(tmp_path: Path) -> None:
    write_mosei(tmp_path)
    folds = tmp_path / "cmu_mosei_std_folds.py"
    folds.write_text(folds.read_text().replace("['220548']", "['-3g5yACwYnA']"))
    with pytest.raises(PipelineError, match="video '-3g5yACwYnA' is in two folds"):
        load_corpus("mosei", tmp_path)
    folds.write_text("standard_train_fold = open('x')")
    with pytest.raises(PipelineError, match="does not list the standard folds"):
        load_corpus("mosei", tmp_path)
    folds.write_text("standard_train_fold = ['x']")
    with pytest.raises(PipelineError, match="lacks one of standard_train_fold"):
        load_corpus("mosei", tmp_path)
    (tmp_path / "CMU_MOSEI_Labels.csd").write_bytes(b"not HDF5")
    write_folds = "standard_{}_fold = ['{}']\n"
    folds.write_text("".join(map(write_folds.format, ("train", "valid", "test"), "abc")))
    with pytest.raises(PipelineError, match="cannot be read as HDF5"):
        load_corpus("mosei", tmp_path)
