"""The manifest that the cache keeps: attributes and votes come back as they were."""

from dataclasses import replace
from pathlib import Path

from mser.pipeline.corpora import Corpus
from mser.pipeline.corpora.corpus_table import corpus_table
from mser.pipeline.corpora.manifest import from_table, to_table
from mser.tests.support.train_runs import make_utterance

RATED = (
    make_utterance("a", attributes={"valence": 2.5, "arousal": 4.0}, votes={"angry": 2, "sad": 1}),
    make_utterance("b", attributes={"arousal": -1.0}),
    make_utterance("c", votes={"happy": 3.0}),
    make_utterance("d"),
)
CLASS_SETS = {"2": {"angry": "bad", "sad": "bad", "happy": "good"}}


def test_attributes_and_votes_survive_the_manifest(tmp_path: Path) -> None:
    corpus = Corpus("own", list(RATED), ("angry", "happy", "sad"), "official")
    table = to_table(corpus, tmp_path, {}, {})
    back, _ = from_table(table)
    assert back.utterances == list(RATED)
    columns = corpus_table(back, table)
    assert columns.valence == [2.5, None, None, None]
    assert columns.columns["votes:angry"] == [2.0, None, None, None]


def test_a_manifest_without_them_has_the_columns_that_it_had_before(tmp_path: Path) -> None:
    plain = [make_utterance("a"), make_utterance("b")]
    table = to_table(Corpus("own", plain, ("angry",), "official"), tmp_path, {}, {})
    assert table.column_names[-1] == "duration"
    assert from_table(table)[0].utterances == plain


def test_the_text_and_the_hash_of_an_utterance_do_not_depend_on_them() -> None:
    plain = replace(RATED[0], attributes={}, votes={})
    assert repr(plain) == repr(RATED[0])
    assert hash(plain) == hash(RATED[0])
    assert plain != RATED[0]


def test_votes_are_added_up_by_class() -> None:
    corpus = Corpus("own", list(RATED), ("angry",), "official", class_sets=CLASS_SETS)
    votes = {utterance.id: utterance.votes for utterance in corpus.in_classes().utterances}
    assert votes == {"a": {"bad": 3.0}, "b": {}, "c": {"good": 3.0}, "d": {}}


def test_votes_for_no_class_are_no_votes_and_zeros_stay() -> None:
    other, none = make_utterance("x", votes={"fear": 2}), make_utterance("y", votes={"angry": 0})
    corpus = Corpus("own", [other, none], ("angry",), "official", class_sets=CLASS_SETS)
    assert [u.votes for u in corpus.in_classes().utterances] == [{}, {"bad": 0.0}]
