"""Training on some corpora and testing on others: parts, balance, and the leakage check."""

from dataclasses import replace

import pytest

from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.protocols.across import split_across
from mser.pipeline.protocols.folds import Splits
from mser.pipeline.protocols.leakage import check_leakage
from mser.tests.support.small_corpora import column, dialogues, ids, official, sessions, utterance

A = sessions([3, 3], [4, 2], [3, 4], [5, 1])


def of(corpus: str, utterances: list[Utterance]) -> list[Utterance]:
    """The utterances as those of a corpus among several."""

    def named(value: str | None) -> str | None:
        return None if value is None else f"{corpus}/{value}"

    return [
        replace(
            u,
            id=f"{corpus}/{u.id}",
            speaker=named(u.speaker),
            session=named(u.session),
            dialogue=named(u.dialogue),
        )
        for u in utterances
    ]


def split(train_on: str, test_on: str, hashes=None, **options) -> Splits:
    """Corpus a has sessions, b official splits, c neither; every clip has its own hash."""
    corpora = {"a": A, "b": official(), "c": dialogues([2, 2, 2])}
    utterances = [u for name, each in corpora.items() for u in of(name, each)]
    own = {u.id: u.id for u in utterances} if hashes is None else hashes
    splits = split_across(utterances, train_on.split(), test_on.split(), own, **options)
    check_leakage(splits.folds, splits.disjoint_columns, own)
    return splits


def test_each_test_corpus_is_a_fold_with_the_same_training_part() -> None:
    b, c = split("a", "b c").folds
    assert (b.name, c.name) == ("b", "c")
    assert (b.train, b.validation) == (c.train, c.validation)
    assert ids((*b.train, *b.validation)) == ids(of("a", A))
    assert ids(c.test) == ids(of("c", dialogues([2, 2, 2])))


def test_validation_is_cut_by_whole_sessions_or_as_asked() -> None:
    (fold,) = split("a", "c").folds
    assert not column(fold.train, "session") & column(fold.validation, "session")
    (fold,) = split("a", "c", validation="dialogue").folds
    assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
    assert column(fold.train, "session") == column(of("a", A), "session")


def test_only_the_test_part_of_an_official_split_is_tested() -> None:
    splits = split("a", "b")
    assert column(splits.folds[0].test, "split") == {"test"}
    why = {splits.left_out[u.id] for u in of("b", official()) if u.split != "test"}
    assert why == {"not in the test part of a test corpus"}


def test_an_official_split_trains_on_its_training_part_alone() -> None:
    splits = split("b", "a")
    (fold,) = splits.folds
    assert column(fold.train, "split") == {"train"}
    assert column(fold.validation, "split") == {"validation"}
    unused = {u.id for u in of("b", official()) if u.split == "test"}
    assert splits.left_out == dict.fromkeys(unused, "in the test part of a training corpus")
    with pytest.raises(UsageError, match="but b has its own: leave out --validation"):
        split("b", "a", validation="dialogue")


def test_balance_leaves_whole_dialogues_of_the_larger_corpus_out() -> None:
    whole, balanced = split("a b", "c"), split("a b", "c", balance=True)

    def sizes(splits: Splits) -> dict[str, int]:
        train = [u.id[0] for u in splits.folds[0].train]
        return {name: train.count(name) for name in "ab"}

    assert sizes(whole)["b"] == 30 > sizes(whole)["a"]
    assert sizes(balanced)["a"] == sizes(whole)["a"]
    assert sizes(whole)["a"] - 3 < sizes(balanced)["b"] <= sizes(whole)["a"]
    left = {id for id, why in balanced.left_out.items() if "balance" in why}
    assert len(left) == sizes(whole)["b"] - sizes(balanced)["b"]
    dialogue = {u.id: u.dialogue for u in of("b", official())}
    kept = {dialogue[u.id] for u in balanced.folds[0].train if u.id in dialogue}
    assert not kept & {dialogue[id] for id in left}
    assert split("a b", "c", balance=True).folds == balanced.folds


def test_a_corpus_is_not_tested_on_itself() -> None:
    with pytest.raises(UsageError, match=r"'a' is in --train-on and in --test-on.*--dataset a"):
        split("a b", "c a")


def test_a_clip_in_both_corpora_ends_the_run() -> None:
    hashes = {"c/dia0_utt0": "x", "a/ses1_dia0_utt0": "x", "a/ses1_dia0_utt1": "y"}
    with pytest.raises(PipelineError, match=r"'c/dia0_utt0' of the test .* have the same clip"):
        split("a", "c", hashes)
    split("a", "c", {**hashes, "c/dia0_utt0": "z"})


@pytest.mark.parametrize(
    ("hashes", "texts", "same"),
    [
        ({}, (None, None), True),
        ({}, ("Yes.", "yes. "), True),
        ({}, ("Yes.", "No."), False),
        ({"a/1": "x", "c/1": "y"}, (None, None), False),
        ({"a/1": "x"}, (None, "No."), True),
    ],
)
def test_an_equal_id_ends_the_run_unless_the_utterances_differ(hashes, texts, same) -> None:
    # The others have the same ids too, but other texts.
    utterances = [
        replace(u, text=f"only in {name}")
        for name in "ac"
        for u in of(name, dialogues([1, 1, 1, 1, 1, 1, 1]))
    ]
    for name, text in zip("ac", texts, strict=True):
        utterances += of(name, [utterance("1", text=text, dialogue="d")])
    arguments = (utterances, ["a"], ["c"], hashes)
    if same:
        with pytest.raises(PipelineError, match=r"'c/1' of the test part and 'a/1' .* same id"):
            split_across(*arguments)
    else:
        assert len(split_across(*arguments).folds[0].test) == 8


def test_a_corpus_without_utterances_is_one_sentence() -> None:
    with pytest.raises(PipelineError, match="the test part of fold 'd' is empty"):
        split("a", "d")
