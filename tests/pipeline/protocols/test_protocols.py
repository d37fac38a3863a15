"""Protocols: honest parts of a corpus, the same each time, and refused where they would leak."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.protocols.protocols import split_corpus
from mser.tests.support.small_corpora import (
    actors,
    changed,
    check_each_is_tested_once,
    column,
    dialogues,
    ids,
    make_folds,
    official,
    parts,
    sessions,
)

LEAVE_OUT = "leave-one-session-out"
ONE_SPEAKER = "leave-one-speaker-out"
SPEAKERS = "speaker-folds"


def test_official_takes_the_splits_of_the_corpus() -> None:
    corpus = official()
    (fold,) = make_folds(corpus, "official")
    assert fold.name == "official"
    for part, split in zip(parts(fold), ("train", "validation", "test"), strict=True):
        assert list(part) == [one for one in corpus if one.split == split]


def test_official_cuts_a_missing_validation_part_from_the_training_part() -> None:
    corpus = official(validation=False)
    (fold,) = make_folds(corpus, "official")
    assert list(fold.test) == [one for one in corpus if one.split == "test"]
    assert column(fold.validation, "split") == {"train"}
    assert ids(fold.train) | ids(fold.validation) == ids(o for o in corpus if o.split == "train")
    assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
    assert len(column(fold.validation, "dialogue")) == 2  # 15 % of ten dialogues


def test_leave_one_session_out_has_a_fold_a_session() -> None:
    folds = make_folds(sessions([4, 4, 4], [5, 5], [3, 3, 3]), LEAVE_OUT)
    assert [fold.name for fold in folds] == ["ses1", "ses2", "ses3"]
    for fold in folds:
        assert column(fold.test, "session") == {fold.name}
        assert fold.name not in column(fold.train + fold.validation, "session")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=6), min_size=2, max_size=5).filter(
        # without any one session there are two dialogues left, to train on and to validate
        lambda of: all(sum(map(len, of)) - len(one) >= 2 for one in of)
    ),
    st.randoms(use_true_random=False),
)
def test_laws_of_leave_one_session_out(sizes: list[list[int]], random: Any) -> None:
    corpus = sessions(*sizes)
    random.shuffle(corpus)
    folds = make_folds(corpus, LEAVE_OUT)
    check_each_is_tested_once(corpus, folds)
    for fold in folds:
        assert all(parts(fold))
        assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
        for name in ("id", "dialogue", "speaker", "session"):
            assert not column(fold.test, name) & column(fold.train + fold.validation, name)


def test_leave_one_speaker_out_validates_on_the_partner() -> None:
    folds = make_folds(sessions([4, 4], [5], [2, 3]), ONE_SPEAKER)
    assert [fold.name for fold in folds] == [f"ses{n}_{who}" for n in (1, 2, 3) for who in "fm"]
    for fold in folds:
        session, who = fold.name.split("_")
        assert column(fold.test, "speaker") == {fold.name}
        assert column(fold.validation, "speaker") == {f"{session}_{'m' if who == 'f' else 'f'}"}
        assert column(fold.train, "session") == {"ses1", "ses2", "ses3"} - {session}


@settings(max_examples=50, deadline=None)
@given(
    # a second turn in some dialogue of each session is what its second speaker says
    st.lists(
        st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda of: max(of) > 1),
        min_size=2,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_laws_of_leave_one_speaker_out(sizes: list[list[int]], random: Any) -> None:
    corpus = sessions(*sizes)
    random.shuffle(corpus)
    folds = make_folds(corpus, ONE_SPEAKER)
    check_each_is_tested_once(corpus, folds)
    for fold in folds:
        assert not column(fold.test, "speaker") & column(fold.validation, "speaker")
        for name in ("id", "dialogue", "speaker", "session"):
            assert not column(fold.train, name) & column(fold.validation + fold.test, name)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=5, max_size=20),
    st.randoms(use_true_random=False),
)
def test_laws_of_speaker_folds(sizes: list[int], random: Any) -> None:
    ordered = actors(sizes)
    corpus = list(ordered)
    random.shuffle(corpus)
    folds = make_folds(corpus, SPEAKERS)
    assert [fold.name for fold in folds] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    tested = [one.id for fold in folds for one in fold.test]
    assert sorted(tested) == sorted(one.id for one in corpus)  # each exactly once
    for fold, same in zip(folds, make_folds(ordered, SPEAKERS), strict=True):
        everything = [one.id for part in parts(fold) for one in part]
        assert sorted(everything) == sorted(one.id for one in corpus)
        speakers = [column(part, "speaker") for part in parts(fold)]
        assert len(set.union(*speakers)) == sum(map(len, speakers))  # each in one part
        assert [ids(part) for part in parts(fold)] == [ids(part) for part in parts(same)]


def test_speaker_folds_are_of_like_size() -> None:
    folds = make_folds(actors([82] * 91), SPEAKERS)
    assert sorted(len(column(fold.test, "speaker")) for fold in folds) == [18, 18, 18, 18, 19]
    assert {len(column(fold.validation, "speaker")) for fold in folds} == {11}  # 15 %, upwards


def test_speaker_folds_may_divide_a_dialogue() -> None:
    corpus = [replace(one, dialogue="all") for one in actors([3] * 6)]
    assert len(make_folds(corpus, SPEAKERS)) == 5


@pytest.mark.parametrize("number", [1, 4])
def test_too_few_speakers_for_folds(number: int) -> None:
    message = f"'speaker-folds' divides by 5 speakers or more, and this corpus has {number}: choose"
    with pytest.raises(UsageError, match=message):
        make_folds(actors([9] * number), SPEAKERS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.integers(1, 4))
def test_laws_of_a_cut_validation_part(sizes: list[int], tested: int) -> None:
    train = dialogues(sizes, "train/", split="train")
    test = dialogues([tested], "test/", split="test")
    (fold,) = make_folds([*test, *train], "official")
    assert ids(fold.test) == ids(test)
    assert ids(fold.train) | ids(fold.validation) == ids(train)
    assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
    assert fold.train
    assert fold.validation


def test_without_dialogues_each_utterance_is_one() -> None:
    corpus = [replace(one, dialogue=None, turn=None) for one in official(validation=False)]
    (fold,) = make_folds(corpus, "official")
    assert len(fold.train) + len(fold.validation) == 30
    assert len(fold.validation) == 5  # 15 % of thirty, upwards


@pytest.mark.parametrize("protocol", ["official", LEAVE_OUT])
def test_folds_are_the_same_each_time(protocol: str) -> None:
    corpus = official(False) if protocol == "official" else sessions([3] * 9, [4] * 9)
    assert make_folds(corpus, protocol) == make_folds(list(corpus), protocol)


def test_a_speaker_in_two_sessions_leaks() -> None:
    corpus = changed(sessions([3] * 4, [3] * 4), 0, speaker="ses2_m")
    with pytest.raises(PipelineError, match=r"'ses1' leaks: .* test share the speaker 'ses2_m'"):
        make_folds(corpus, LEAVE_OUT)


def test_a_dialogue_in_two_sessions_leaks() -> None:
    corpus = changed(sessions([3] * 4, [3] * 4), 0, dialogue="ses2_dia1")
    with pytest.raises(PipelineError, match="test share the dialogue 'ses2_dia1'"):
        make_folds(corpus, LEAVE_OUT)


def test_a_dialogue_of_the_speaker_who_is_left_out_and_of_another_session_leaks() -> None:
    corpus = changed(sessions([4], [4], [4]), 0, dialogue="ses2_dia0")
    with pytest.raises(PipelineError, match="train and test share the dialogue 'ses2_dia0'"):
        make_folds(corpus, ONE_SPEAKER)


def test_a_speaker_of_two_sessions_is_left_out_of_both() -> None:
    corpus = [
        replace(one, speaker="host") if (one.speaker or "").endswith("1_m") else one
        for one in sessions([4], [4], [4])
    ]
    corpus = changed(corpus, 4, speaker="host")  # in the second session
    fold = next(fold for fold in make_folds(corpus, ONE_SPEAKER) if fold.name == "host")
    assert column(fold.test, "session") == {"ses1", "ses2"}
    assert column(fold.validation, "speaker") == {"ses1_f", "ses2_f", "ses2_m"}
    assert column(fold.train, "session") == {"ses3"}


def test_a_speaker_alone_in_a_session_has_nobody_to_validate_on() -> None:
    corpus = [*sessions([4], [4]), *dialogues([3], session="ses3", speaker="ses3_f")]
    with pytest.raises(UsageError, match=r"of 'ses3_f' there is nobody else: choose leave-one-ses"):
        make_folds(corpus, ONE_SPEAKER)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_dialogue_in_the_test_part_and_another_leaks(split: str) -> None:
    corpus = changed(official(), -1 % len(official()), dialogue=f"{split}/dia1")
    message = f"fold 'official' leaks: {split} and test share the dialogue '{split}/dia1'"
    with pytest.raises(PipelineError, match=message):
        make_folds(corpus, "official")


def test_a_dialogue_in_training_and_validation_leaks() -> None:
    corpus = changed(official(), 0, dialogue="validation/dia0")
    with pytest.raises(PipelineError, match="train and validation share the dialogue"):
        make_folds(corpus, "official")


def test_an_id_in_two_parts_leaks() -> None:
    corpus = changed(official(), 0, id="test/dia1_utt1")
    with pytest.raises(PipelineError, match="train and test share the id 'test/dia1_utt1'"):
        make_folds(corpus, "official")


def test_official_splits_may_share_speakers() -> None:
    (fold,) = make_folds(official(), "official")
    assert column(fold.train, "speaker") == column(fold.test, "speaker") == {"Joey"}


def test_unknown_speakers_are_no_leak() -> None:
    corpus = [replace(one, speaker=None) for one in sessions([3] * 3, [3] * 3)]
    assert len(make_folds(corpus, LEAVE_OUT)) == 2


@pytest.mark.parametrize(
    ("protocol", "missing"),
    [
        *(("official", "split"), (LEAVE_OUT, "session")),
        *((ONE_SPEAKER, "speaker"), (ONE_SPEAKER, "session"), (SPEAKERS, "speaker")),
    ],
)
def test_a_corpus_without_what_a_protocol_divides_by(protocol: str, missing: str) -> None:
    whole = official() if protocol == "official" else sessions([3] * 3, [3] * 3)
    unknown: dict[str, Any] = {missing: None}
    corpus = [replace(one, **unknown) for one in whole]
    message = f"'{protocol}' divides by {missing}, which this corpus does not give: choose another"
    with pytest.raises(UsageError, match=message):
        make_folds(corpus, protocol)


def test_one_utterance_without_a_session_is_enough_to_refuse() -> None:
    corpus = changed(sessions([3] * 3, [3] * 3), 4, session=None)
    with pytest.raises(UsageError, match="session"):
        make_folds(corpus, LEAVE_OUT)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_an_empty_part_is_refused(missing: str) -> None:
    corpus = [one for one in official() if one.split != missing]
    with pytest.raises(PipelineError, match=f"the {missing} part of fold 'official' is empty"):
        make_folds(corpus, "official")


def test_a_single_session_leaves_nothing_to_train_on() -> None:
    with pytest.raises(PipelineError):
        make_folds(sessions([3] * 5), LEAVE_OUT)


def test_a_single_training_dialogue_leaves_none_for_validation() -> None:
    with pytest.raises(PipelineError, match="no dialogue for validation"):
        make_folds(sessions([9], [9]), LEAVE_OUT)


def test_an_unknown_protocol_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'leave-one-session-out'"):
        make_folds(sessions([3] * 3, [3] * 3), "leave-one-sesion-out")


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("official:3", "takes nothing behind a colon: write official"),
        ("group-folds", "write group-folds:COLUMN:K, such as group-folds:speaker:10"),
        ("group-folds:speaker", "how many folds, 2 or more: write group-folds:speaker:10"),
        ("group-folds:speaker:1", "how many folds, 2 or more"),
        ("group-folds:speaker:ten", "how many folds, 2 or more"),
        ("group-folds:speaker:5", "divides by 5 speakers or more, and this corpus has 4"),
        ("group-folds:label:5", "cannot be divided by label: choose speaker, session, dialogue"),
        ("group-folds:speeker:5", "did you mean 'speaker'.*known: dialogue, id, session"),
        ("group-folds:text:5", "divides by text, which this .*: choose another, by speaker or ses"),
        ("hold-out:session", "which session is the test: write hold-out:session=VALUE"),
        ("hold-out:label=neutral", "cannot be divided by label"),
        ("hold-out:session=ses3", r"unknown session .*'ses3'.*known: ses1, ses2"),
        ("hold-out:session=", r"unknown session .*known: ses1, ses2"),
        ("holdout:session=ses1", "did you mean 'hold-out'"),
        ("file:", "write file:PATH"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_there_is(protocol: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_corpus(sessions([3] * 3, [3] * 3), protocol)
