"""The map of labels to classes that several corpora have in common."""

from dataclasses import replace
from pathlib import Path

import pytest

from mser.pipeline.corpora import Corpus
from mser.pipeline.corpora.class_map import class_map, read_class_map
from mser.pipeline.errors import UsageError
from mser.tests.support.small_corpora import utterance

LABELS = ("exc", "Happy", "joy", "fru", None, "ang")


def mapped(content, name: str = "any") -> list[str | None]:
    corpus = Corpus("x", [utterance(str(n), label=v) for n, v in enumerate(LABELS)], (), "official")
    corpus = replace(corpus, class_sets={"4": {"exc": "wrong"}})
    result = class_map(content).applied(corpus, name)
    assert result.classes == class_map(content).classes
    assert result.in_classes() == result
    return [u.label for u in result.utterances]


def test_the_four_common_classes_are_the_default() -> None:
    assert mapped(None) == ["happy", "happy", "happy", None, None, "angry"]
    assert class_map(None).classes == ("angry", "happy", "sad", "neutral")


def test_a_file_may_have_other_labels_for_one_corpus(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('up = ["joy", "EXC"]\ndown = ["ang"]\n[iemocap]\ndown = ["fru", "ang"]\n')
    content = read_class_map(path)
    assert mapped(content) == ["up", None, "up", None, None, "down"]
    assert mapped(content, "iemocap") == [None, None, None, "down", None, "down"]
    assert class_map(class_map(content).as_toml()) == class_map(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('up = ["joy"]\ndown = ["Joy"]', "the label 'Joy' is in up and in down: remove one"),
        ('up = "joy"', r"up = 'joy': give a list"),
        ('up = ["joy"]', "has 1 classes: give two or more"),
        ('up = ["joy"]\ndown = ["ang"]\n[meld]\nleft = []', r"unknown class in .*\[meld\] 'left'"),
        ("up = [", "is not TOML"),
    ],
)
def test_a_wrong_map_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_class_map(path)
