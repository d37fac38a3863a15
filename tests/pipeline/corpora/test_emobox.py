"""Corpora by EmoBox's metadata, with the faults of the repository."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mser.pipeline.corpora import load_corpus
from mser.pipeline.errors import PipelineError
from mser.tests.support.corpus_trees import write_emobox, write_lines
from mser.tests.support.small_corpora import make_folds

EMOTIONS = {"a": "Angry", "h": "Happy", "exc": "Happy"}


def test_the_folds_of_emobox_are_sessions(tmp_path: Path) -> None:
    corpus = load_corpus("emobox", write_emobox(tmp_path, "casia", 3, EMOTIONS))
    assert (corpus.name, corpus.protocol) == ("emobox-casia", "leave-one-session-out")
    assert corpus.classes == ("Angry", "Happy")
    assert Counter(u.label for u in corpus.utterances) == {"Angry": 6, "Happy": 12}
    assert all(u.audio and u.audio.is_file() for u in corpus.utterances)
    folds = {fold.name: fold for fold in make_folds(corpus.utterances, corpus.protocol)}
    for name, fold in folds.items():
        lists = tmp_path / "data" / "casia" / name
        for part, ours in (("test", fold.test), ("train", (*fold.train, *fold.validation))):
            lines = (lists / f"casia_{part}_{name}.jsonl").read_text().splitlines()
            assert {json.loads(line)["key"] for line in lines} == {u.id for u in ours}


def test_one_fold_is_the_official_split(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path, "meld", 1, EMOTIONS)
    train = folder / "fold_1" / "meld_train_fold_1.jsonl"
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(lines[2:]))
    (folder / "fold_1" / "meld_valid_fold_1.jsonl").write_text(lines[0])
    corpus = load_corpus("emobox", folder)
    assert corpus.protocol == "official"
    assert Counter(u.split for u in corpus.utterances) == {"test": 6, "train": 4, "validation": 1}
    assert corpus.notes == ("1 utterances of meld are in no list of EmoBox: left out",)


def test_labels_are_mapped_whatever_their_case(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path, "emodb", 2, {"neutral": "?", "odd": "?"})
    (folder / "label_map.json").unlink()
    (folder / "label_dict.json").write_text('{"Neutral": "Neutral"}')
    write_lines(folder / "fold_1" / "emodb_test_fold1.jsonl", [{"key": "older"}])
    corpus = load_corpus("emobox", folder)
    assert Counter(u.label for u in corpus.utterances) == {"Neutral": 6, None: 6}
    assert corpus.notes == ("6 labels of emodb are not in EmoBox's map: these have no label",)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "x.jsonl").unlink(), "has no EmoBox metadata 'x.jsonl': give the folder"),
        (lambda f: (f / "label_map.json").unlink(), "has no 'label_map.json'"),
        (lambda f: (f / "label_map.json").write_text("["), "cannot be read as JSON"),
        (lambda f: (f / "fold_2/x_train_fold_2.jsonl").unlink(), "has no complete fold such as"),
        (
            lambda f: write_lines(f / "fold_2/x_test_fold_2.jsonl", [{"key": "x-0"}]),
            "'x-0' is tested in two folds",
        ),
        (
            lambda f: write_lines(f / "fold_2/x_train_fold_2.jsonl", [{"key": "x-0"}]),
            "the training part of fold_2 is not that of all other folds",
        ),
        (lambda f: write_lines(f / "x.jsonl", [{"key": "x-0", "emo": "a"}]), "line 1: it has no"),
        (
            lambda f: write_lines(
                f / "x.jsonl", [{"key": "x-0", "emo": "a", "wav": "w", "start_time": 0.0}]
            ),
            "its clip is a stretch of 'w'",
        ),
    ],
)
def test_damaged_metadata_is_one_sentence(tmp_path: Path, damage, words: str) -> None:
    folder = write_emobox(tmp_path, "x", 2, EMOTIONS)
    damage(folder)
    with pytest.raises(PipelineError, match=words):
        load_corpus("emobox", folder)


def test_a_clip_in_two_parts_of_the_only_fold_is_one_sentence(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path, "x", 1, EMOTIONS)
    write_lines(folder / "fold_1" / "x_valid_fold_1.jsonl", [{"key": "x-0"}])
    with pytest.raises(PipelineError, match="'x-0' is in two parts of a fold"):
        load_corpus("emobox", folder)
