"""MELD in the layout of the release, with its faults."""

import csv
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from mser.pipeline.corpora import load_corpus, meld
from mser.pipeline.errors import PipelineError, UsageError

FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
HEADER = (
    *("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
)
ROWS = {
    "train": [
        ("also I was the point person\u0085", "Chandler", "neutral", 0, 0),
        ("You must\u0092ve had your hands full.", "The Interviewer", "neutral", 0, 1),
        ("Oh, \u0093really\u0094", "Joey/Drake", "surprise", 0, 4),  # 2 and 3 were left out
        ("No!", "All", "anger", 1, 0),
    ],
    "dev": [
        ("Oh my God, he’s lost it.", "Phoebe", "sadness", 0, 0),
        ("What?", "Monica", "fear", 110, 7),
    ],
    "test": [
        ("Why do all you’re coffee mugs…", "Mark", "Joy", 0, 0),
        ("Ugh.", "Rachel", "disgust", 0, 1),
    ],
}


def write_table(path: Path, rows, header=HEADER, encoding="utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore", restval="0")
        writer.writeheader()
        for text, speaker, emotion, dialogue, turn in rows:
            facts = {"Utterance": text, "Speaker": speaker, "Emotion": emotion}
            numbers = {"Dialogue_ID": dialogue, "Utterance_ID": turn}
            writer.writerow({**facts, **numbers, "StartTime": "00:16:16,059"})


@pytest.fixture
def root(tmp_path):
    """A tree as the release unpacks, in which only the clip dia110_utt7 of dev is absent."""
    root = tmp_path / "MELD.Raw"
    for name, rows in ROWS.items():
        folder = root / FOLDERS[name]
        folder.mkdir(parents=True)
        write_table(root / f"{name}_sent_emo.csv", rows)
        for *_, dialogue, turn in rows:
            (folder / f"dia{dialogue}_utt{turn}.mp4").write_bytes(b"clip")
    (root / FOLDERS["dev"] / "dia110_utt7.mp4").unlink()
    return root


def by_id(corpus):
    utterances = {utterance.id: utterance for utterance in corpus.utterances}
    assert len(utterances) == len(corpus.utterances)
    return utterances


def test_each_row_is_an_utterance_in_the_order_of_the_release(root):
    corpus = load_corpus("meld", root)
    assert [utterance.id for utterance in corpus.utterances] == [
        *("train/dia0_utt0", "train/dia0_utt1", "train/dia0_utt4", "train/dia1_utt0"),
        *("dev/dia0_utt0", "dev/dia110_utt7", "test/dia0_utt0", "test/dia0_utt1"),
    ]
    assert (corpus.name, corpus.protocol) == ("meld", "official")
    assert corpus.classes == meld.CLASSES
    assert len(corpus.classes) == 7


def test_ids_carry_their_split(root):
    utterances = by_id(meld.load(root))
    same = [utterances[f"{name}/dia0_utt0"] for name in FOLDERS]
    assert [utterance.split for utterance in same] == ["train", "validation", "test"]
    assert [utterance.dialogue for utterance in same] == ["train/dia0", "dev/dia0", "test/dia0"]
    assert [utterance.audio for utterance in same] == [
        root / folder / "dia0_utt0.mp4" for folder in FOLDERS.values()
    ]


def test_fields_of_an_utterance(root):
    utterance = by_id(meld.load(root))["train/dia0_utt4"]
    assert utterance.speaker == "Joey/Drake"
    assert utterance.label == "surprise"
    assert utterance.turn == 4
    assert utterance.session is None
    assert by_id(meld.load(root))["train/dia1_utt0"].speaker == "All"


def test_turns_keep_the_gaps_in_the_utterance_numbers(root):
    utterances = meld.load(root).utterances
    turns = [utterance.turn for utterance in utterances if utterance.dialogue == "train/dia0"]
    assert turns == [0, 1, 4]
    for utterance in utterances:
        assert utterance.audio is not None
        assert utterance.audio.name == f"{utterance.id.split('/')[1]}.mp4"


def test_control_characters_become_punctuation(root):
    utterances = by_id(meld.load(root))
    assert utterances["train/dia0_utt0"].text == "also I was the point person…"
    assert utterances["train/dia0_utt1"].text == "You must’ve had your hands full."
    assert utterances["train/dia0_utt4"].text == "Oh, “really”"
    assert utterances["dev/dia0_utt0"].text == "Oh my God, he’s lost it."
    for utterance in utterances.values():
        assert not any(unicodedata.category(character) == "Cc" for character in utterance.text)


def test_a_label_in_capital_letters(root):
    assert by_id(meld.load(root))["test/dia0_utt0"].label == "joy"


def test_a_byte_order_mark_is_not_part_of_the_first_column(root):
    header = ("Utterance", *(name for name in HEADER if name != "Utterance"))
    write_table(root / "dev_sent_emo.csv", ROWS["dev"], header, encoding="utf-8-sig")
    assert by_id(meld.load(root))["dev/dia0_utt0"].text == "Oh my God, he’s lost it."


def test_an_absent_clip_is_an_utterance(root):
    utterance = by_id(meld.load(root))["dev/dia110_utt7"]
    assert utterance.audio == root / FOLDERS["dev"] / "dia110_utt7.mp4"
    assert not utterance.audio.exists()


def test_other_clips_are_listed_with_a_reason(root):
    clips = root / FOLDERS["test"]
    for name in ("._dia0_utt0.mp4", "final_videos_testdia1_utt0.mp4", "dia9_utt9.mp4", "notes.txt"):
        (clips / name).write_bytes(b"x")
    corpus = meld.load(root)
    ignored = {path.name: reason for path, reason in corpus.ignored}
    assert set(ignored) == {"._dia0_utt0.mp4", "final_videos_testdia1_utt0.mp4", "dia9_utt9.mp4"}
    assert "macOS" in ignored["._dia0_utt0.mp4"]
    assert "second cut" in ignored["final_videos_testdia1_utt0.mp4"]
    assert ignored["dia9_utt9.mp4"] == "not in the annotation"
    assert len(corpus.utterances) == 8


def test_a_clean_tree_ignores_nothing(root):
    assert meld.load(root).ignored == []


def test_annotations_in_a_folder_of_their_own(root):
    (root / "annotations" / "MELD").mkdir(parents=True)
    before = meld.load(root)
    for name in FOLDERS:
        table = root / f"{name}_sent_emo.csv"
        table.rename(root / "annotations" / "MELD" / table.name)
    assert meld.load(root) == before


def test_clips_without_the_folder_of_their_split(root):
    expected = list(by_id(meld.load(root)))
    for folder in FOLDERS.values():
        (root / folder).rename(root / Path(folder).name)
    corpus = meld.load(root)
    assert list(by_id(corpus)) == expected
    assert corpus.utterances[0].audio == root / "train_splits" / "dia0_utt0.mp4"


def test_a_copy_in_a_deeper_folder_is_ignored(root):
    write_table(root / "a" / "backup" / "train_sent_emo.csv", ROWS["test"])
    (root / "a" / "backup" / "train_splits").mkdir()
    first = meld.load(root).utterances[0]
    assert (first.speaker, first.audio) == (
        "Chandler",
        root / FOLDERS["train"] / "dia0_utt0.mp4",
    )


def test_a_linked_folder_is_followed(root, tmp_path):
    (root / "train").rename(tmp_path / "disk2")
    (root / "train").symlink_to(tmp_path / "disk2")
    assert len(meld.load(root).utterances) == 8


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no folder .*: give the folder of meld"):
        load_corpus("meld", tmp_path / "nothing")


def test_a_folder_that_is_not_meld(tmp_path):
    with pytest.raises(PipelineError, match=r"is not MELD: it contains no .*; give the folder"):
        meld.load(tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
def test_an_annotation_is_missing(root, name):
    (root / f"{name}_sent_emo.csv").unlink()
    with pytest.raises(PipelineError, match=f"is not MELD: it contains no '{name}_sent_emo.csv'"):
        meld.load(root)


def test_the_tables_alone_give_texts_without_clips(root):
    whole = meld.load(root)
    for folder in FOLDERS.values():
        shutil.rmtree(root / folder)
    texts = meld.load(root)
    assert texts.utterances == [replace(u, audio=None, video=None) for u in whole.utterances]
    assert (texts.ignored, texts.columns) == ([], whole.columns)


@pytest.mark.parametrize("name", FOLDERS)
def test_one_folder_of_clips_is_missing(root, name):
    shutil.rmtree(root / FOLDERS[name])
    with pytest.raises(PipelineError, match=f"contains no '{Path(FOLDERS[name]).name}'"):
        meld.load(root)


@pytest.mark.parametrize(
    "column", ["Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"]
)
def test_a_table_without_a_column(root, column):
    path = root / "dev_sent_emo.csv"
    write_table(path, ROWS["dev"], [name for name in HEADER if name != column])
    with pytest.raises(PipelineError, match=f"has no column '{column}'") as caught:
        meld.load(root)
    assert str(path) in str(caught.value)


def test_an_empty_table(root):
    (root / "dev_sent_emo.csv").write_text("")
    with pytest.raises(PipelineError, match="is empty: name the columns"):
        meld.load(root)


def test_an_emotion_that_meld_does_not_have(root):
    write_table(root / "test_sent_emo.csv", [*ROWS["test"], ("Hm.", "Ross", "bored", 3, 0)])
    with pytest.raises(PipelineError, match="line 4: 'bored' is not an emotion of MELD"):
        meld.load(root)


def test_a_dialogue_id_that_is_not_a_number(root):
    write_table(root / "test_sent_emo.csv", [("Hm.", "Ross", "joy", "three", 0)])
    with pytest.raises(PipelineError, match=r"test_sent_emo\.csv, line 2: .*'three'"):
        meld.load(root)


def test_a_table_that_is_cut_off(root):
    path = root / "test_sent_emo.csv"
    path.write_text(path.read_text() + "3,Hm.,Ross")
    with pytest.raises(PipelineError, match=r"test_sent_emo\.csv, line 4"):
        meld.load(root)


def test_a_table_in_another_encoding(root):
    write_table(root / "test_sent_emo.csv", ROWS["test"], encoding="cp1252")
    with pytest.raises(PipelineError, match=r"test_sent_emo\.csv"):
        meld.load(root)
