"""Which test utterances a bootstrap draws together."""

import pytest

from mser.pipeline.errors import UsageError
from mser.pipeline.evaluation.groups import chosen_groups, counted_groups, group_columns
from mser.tests.support.small_corpora import dialogues, sessions, utterance


@pytest.mark.parametrize(("number", "by"), [(9, "utterance"), (10, "dialogue"), (30, "dialogue")])
def test_dialogues_are_the_default_if_there_are_enough(number: int, by: str) -> None:
    corpus = dialogues([2] * number)
    groups = chosen_groups([u.id for u in corpus], group_columns(corpus))
    assert (groups.by, groups.number) == (by, number if by == "dialogue" else 2 * number)


def test_only_the_dialogues_of_the_test_utterances_count() -> None:
    corpus = dialogues([2] * 30)
    groups = chosen_groups([u.id for u in corpus[:12]], group_columns(corpus))
    assert str(groups) == "12 utterances"


def test_without_dialogues_utterances_are_the_default() -> None:
    corpus = [utterance(f"u{n}") for n in range(40)]
    groups = chosen_groups([u.id for u in corpus], group_columns(corpus))
    assert (str(groups), groups.group_of) == ("40 utterances", None)


def test_an_utterance_without_a_value_is_a_group_by_itself() -> None:
    corpus = [*dialogues([2] * 10), utterance("a"), utterance("b"), utterance("dia0")]
    groups = chosen_groups([u.id for u in corpus], group_columns(corpus))
    assert str(groups) == "13 dialogues"
    assert groups.group_of is not None
    assert groups.group_of["dia0_utt0"] == groups.group_of["dia0_utt1"]
    # Its id is the name of a dialogue, to which it does not belong.
    assert groups.group_of["dia0"] != groups.group_of["dia0_utt0"]


def test_few_groups_have_a_note() -> None:
    corpus = sessions([3] * 6, [3] * 6)
    ids, columns = [u.id for u in corpus], group_columns(corpus)
    assert chosen_groups(ids, columns, "session").notes() == (
        "the intervals draw only 2 sessions, so they are unreliable",
    )
    assert chosen_groups(ids, columns, "speaker").number == 4
    assert chosen_groups(ids, columns, "dialogue").notes() == ()
    assert chosen_groups(ids[:3], columns, "utterance").notes() == ()


def test_columns_that_are_not_there_are_refused() -> None:
    ids = ["a", "b"]
    with pytest.raises(UsageError, match="no test utterance has a speaker"):
        chosen_groups(ids, {}, "speaker")
    with pytest.raises(UsageError, match="known: dialogue, session, speaker, utterance"):
        chosen_groups(ids, {}, "label")


def test_groups_as_text() -> None:
    assert counted_groups({"by": "speaker", "number": 1}) == "1 speaker"
    assert counted_groups(None) == "utterances"
