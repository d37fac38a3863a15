"""``group-folds`` and ``hold-out`` for any column, and the whole dialogues of a part."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mser.pipeline.errors import PipelineError, UsageError
from mser.tests.support.small_corpora import (
    actors,
    changed,
    check_each_is_tested_once,
    column,
    ids,
    make_folds,
    parts,
    sessions,
    utterance,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), min_size=2, max_size=5),
    st.sampled_from(["speaker", "session", "dialogue", "text", "id"]),
    st.integers(2, 6),
    st.randoms(use_true_random=False),
)
def test_group_folds_keep_groups_whole(
    sizes: list[list[int]], by: str, number: int, random: Any
) -> None:
    ordered = [replace(u, text=f"{len(u.id)} {u.turn}") for u in sessions(*sizes)]
    assume(len(column(ordered, by)) > number)
    corpus = list(ordered)
    random.shuffle(corpus)
    protocol = f"group-folds:{by}:{number}"
    try:
        folds = make_folds(corpus, protocol)
    except PipelineError as error:  # validation needs two dialogues
        assert "for validation" in str(error)  # noqa: PT017
        assume(False)
    assert len(folds) == number
    check_each_is_tested_once(corpus, folds)
    for fold, same in zip(folds, make_folds(ordered, protocol), strict=True):
        assert all(parts(fold))
        assert not column(fold.test, by) & column(fold.train + fold.validation, by)
        whole = by if by in ("speaker", "text") else "dialogue"
        assert not column(fold.train, whole) & column(fold.validation, whole)
        assert [ids(part) for part in parts(fold)] == [ids(part) for part in parts(same)]


def test_speaker_folds_are_group_folds_of_five_by_speaker() -> None:
    corpus = actors([4, 2, 7, 5, 3, 3, 6])
    assert make_folds(corpus, "speaker-folds") == make_folds(corpus, "group-folds:speaker:5")


def test_texts_are_equal_without_case() -> None:
    texts = ["Yes.", "yes. ", "YES.", "No.", "Well.", "Oh."]
    corpus = [utterance(f"u{n}", text=text) for n, text in enumerate(texts)]
    for fold in make_folds(corpus, "group-folds:text:4"):
        for part in parts(fold):
            assert len(ids(part) & {"u0", "u1", "u2"}) in (0, 3)


@pytest.mark.parametrize("value", ["Ses02", "2", "02"])
def test_a_held_out_session_is_the_test_part(value: str) -> None:
    corpus = [
        replace(utterance, session=(utterance.session or "").replace("ses", "Ses0"))
        for utterance in sessions([3] * 4, [3] * 4, [3] * 4)
    ]
    (fold,) = make_folds(corpus, f"hold-out:session={value}")
    assert fold.name == "Ses02"
    assert fold.test == tuple(u for u in corpus if u.session == "Ses02")
    assert column(fold.train, "session") == {"Ses01", "Ses03"}
    assert ids(fold.train + fold.validation) == ids(u for u in corpus if u.session != "Ses02")
    assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")


def test_a_number_in_which_two_values_end_is_ambiguous() -> None:
    corpus = [
        replace(utterance, session={"ses1": "a5", "ses2": "b5"}[str(utterance.session)])
        for utterance in sessions([3] * 3, [3] * 3)
    ]
    with pytest.raises(UsageError, match=r"unknown session .*'5'.*known: a5, b5"):
        make_folds(corpus, "hold-out:session=5")


def test_a_held_out_speaker_leaves_whole_speakers_for_validation() -> None:
    (fold,) = make_folds(actors([5] * 10), "hold-out:speaker=1004")
    speakers = [column(part, "speaker") for part in parts(fold)]
    assert speakers[2] == {"1004"}
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 10


def test_the_only_value_cannot_be_held_out() -> None:
    with pytest.raises(PipelineError, match="'ses1', so none is left for training"):
        make_folds(sessions([3] * 5), "hold-out:session=ses1")


def test_a_dialogue_of_two_sessions_leaks_if_a_session_is_held_out() -> None:
    corpus = changed(sessions([3] * 4, [3] * 4), 0, dialogue="ses2_dia1")
    with pytest.raises(PipelineError, match="share the dialogue 'ses2_dia1'"):
        make_folds(corpus, "hold-out:session=ses2")


def test_the_whole_dialogues_of_a_part() -> None:
    corpus = sessions([4, 4], [1, 4], [2, 3])
    for fold in make_folds(corpus, "leave-one-speaker-out"):
        session = fold.name.split("_")[0]
        assert fold.whole_dialogues("train") == column(fold.train, "dialogue")
        # The first dialogue of the second session is a single turn of its first speaker.
        assert fold.whole_dialogues("test") == ({"ses2_dia0"} if fold.name == "ses2_f" else set())
        assert not fold.whole_dialogues("validation") & {f"{session}_dia1"}
