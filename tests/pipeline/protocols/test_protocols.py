"""Protocols: parts that do not leak and do not depend on the order, and errors."""

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
        assert list(part) == [u for u in corpus if u.split == split]


def test_official_cuts_a_missing_validation_part_from_the_training_part() -> None:
    corpus = official(validation=False)
    (fold,) = make_folds(corpus, "official")
    assert list(fold.test) == [u for u in corpus if u.split == "test"]
    assert column(fold.validation, "split") == {"train"}
    assert ids(fold.train) | ids(fold.validation) == ids(u for u in corpus if u.split == "train")
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
        # without any session, two dialogues are left for training and validation
        lambda sizes: all(sum(map(len, sizes)) - len(session) >= 2 for session in sizes)
    ),
    st.randoms(use_true_random=False),
)
def test_leave_one_session_out_in_any_order(sizes: list[list[int]], random: Any) -> None:
    corpus = sessions(*sizes)
    random.shuffle(corpus)
    folds = make_folds(corpus, LEAVE_OUT)
    check_each_is_tested_once(corpus, folds)
    for fold in folds:
        assert all(parts(fold))
        assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
        for name in ("id", "dialogue", "speaker", "session"):
            assert not column(fold.test, name) & column(fold.train + fold.validation, name)


def test_leave_one_speaker_out_validates_on_the_other_speaker() -> None:
    folds = make_folds(sessions([4, 4], [5], [2, 3]), ONE_SPEAKER)
    assert [fold.name for fold in folds] == [f"ses{n}_{sex}" for n in (1, 2, 3) for sex in "fm"]
    for fold in folds:
        session, sex = fold.name.split("_")
        assert column(fold.test, "speaker") == {fold.name}
        assert column(fold.validation, "speaker") == {f"{session}_{'m' if sex == 'f' else 'f'}"}
        assert column(fold.train, "session") == {"ses1", "ses2", "ses3"} - {session}


@settings(max_examples=50, deadline=None)
@given(
    # each session has a dialogue of two turns or more, so that its second speaker talks
    st.lists(
        st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 1),
        min_size=2,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_leave_one_speaker_out_in_any_order(sizes: list[list[int]], random: Any) -> None:
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
def test_speaker_folds_in_any_order(sizes: list[int], random: Any) -> None:
    ordered = actors(sizes)
    corpus = list(ordered)
    random.shuffle(corpus)
    folds = make_folds(corpus, SPEAKERS)
    assert [fold.name for fold in folds] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    check_each_is_tested_once(corpus, folds)
    for fold, same in zip(folds, make_folds(ordered, SPEAKERS), strict=True):
        speakers = [column(part, "speaker") for part in parts(fold)]
        assert len(set.union(*speakers)) == sum(map(len, speakers))  # each speaker is in one part
        assert [ids(part) for part in parts(fold)] == [ids(part) for part in parts(same)]


def test_speaker_folds_have_similar_sizes() -> None:
    folds = make_folds(actors([82] * 91), SPEAKERS)
    assert sorted(len(column(fold.test, "speaker")) for fold in folds) == [18, 18, 18, 18, 19]
    assert {len(column(fold.validation, "speaker")) for fold in folds} == {11}  # 15 %, rounded up


def test_speaker_folds_may_divide_a_dialogue() -> None:
    corpus = [replace(utterance, dialogue="all") for utterance in actors([3] * 6)]
    assert len(make_folds(corpus, SPEAKERS)) == 5


@pytest.mark.parametrize("number", [1, 4])
def test_too_few_speakers_for_folds(number: int) -> None:
    message = f"'speaker-folds' needs 5 speakers or more, but this corpus has {number}: choose"
    with pytest.raises(UsageError, match=message):
        make_folds(actors([9] * number), SPEAKERS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.integers(1, 4))
def test_validation_is_cut_by_whole_dialogues(sizes: list[int], tested: int) -> None:
    train = dialogues(sizes, "train/", split="train")
    test = dialogues([tested], "test/", split="test")
    (fold,) = make_folds([*test, *train], "official")
    assert ids(fold.test) == ids(test)
    assert ids(fold.train) | ids(fold.validation) == ids(train)
    assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
    assert fold.train
    assert fold.validation


def test_without_dialogues_each_utterance_is_its_own_group() -> None:
    corpus = [replace(u, dialogue=None, turn=None) for u in official(validation=False)]
    (fold,) = make_folds(corpus, "official")
    assert len(fold.train) + len(fold.validation) == 30
    assert len(fold.validation) == 5  # 15 % of thirty, rounded up


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


def test_a_dialogue_of_the_left_out_speaker_in_another_session_leaks() -> None:
    corpus = changed(sessions([4], [4], [4]), 0, dialogue="ses2_dia0")
    with pytest.raises(PipelineError, match="train and test share the dialogue 'ses2_dia0'"):
        make_folds(corpus, ONE_SPEAKER)


def test_a_speaker_of_two_sessions_is_left_out_of_both() -> None:
    corpus = [
        replace(utterance, speaker="host") if utterance.speaker == "ses1_m" else utterance
        for utterance in sessions([4], [4], [4])
    ]
    corpus = changed(corpus, 4, speaker="host")  # in the second session
    fold = next(fold for fold in make_folds(corpus, ONE_SPEAKER) if fold.name == "host")
    assert column(fold.test, "session") == {"ses1", "ses2"}
    assert column(fold.validation, "speaker") == {"ses1_f", "ses2_f", "ses2_m"}
    assert column(fold.train, "session") == {"ses3"}


def test_a_speaker_alone_in_a_session_leaves_no_validation_part() -> None:
    corpus = [*sessions([4], [4]), *dialogues([3], session="ses3", speaker="ses3_f")]
    with pytest.raises(
        UsageError, match=r"'ses3_f' has no other speaker there: choose leave-one-ses"
    ):
        make_folds(corpus, ONE_SPEAKER)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_dialogue_in_the_test_part_and_another_part_leaks(split: str) -> None:
    corpus = changed(official(), len(official()) - 1, dialogue=f"{split}/dia1")
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


def test_unknown_speakers_do_not_leak() -> None:
    corpus = [replace(utterance, speaker=None) for utterance in sessions([3] * 3, [3] * 3)]
    assert len(make_folds(corpus, LEAVE_OUT)) == 2


@pytest.mark.parametrize(
    ("protocol", "missing"),
    [
        *(("official", "split"), (LEAVE_OUT, "session")),
        *((ONE_SPEAKER, "speaker"), (SPEAKERS, "speaker")),
    ],
)
def test_a_corpus_without_the_column_of_a_protocol(protocol: str, missing: str) -> None:
    whole = official() if protocol == "official" else sessions([3] * 3, [3] * 3)
    unknown: dict[str, Any] = {missing: None}
    corpus = [replace(utterance, **unknown) for utterance in whole]
    message = f"'{protocol}' needs the column {missing}, which this corpus does not have: choose"
    with pytest.raises(UsageError, match=message):
        make_folds(corpus, protocol)


@pytest.mark.parametrize("protocol", [LEAVE_OUT, ONE_SPEAKER])
def test_one_utterance_without_a_session_is_enough_to_refuse(protocol: str) -> None:
    corpus = changed(sessions([3] * 3, [3] * 3), 4, session=None)
    with pytest.raises(UsageError, match="needs the column session"):
        make_folds(corpus, protocol)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_an_empty_part_is_refused(missing: str) -> None:
    corpus = [utterance for utterance in official() if utterance.split != missing]
    with pytest.raises(PipelineError, match=f"the {missing} part of fold 'official' is empty"):
        make_folds(corpus, "official")


def test_a_single_session_leaves_nothing_for_training() -> None:
    with pytest.raises(PipelineError):
        make_folds(sessions([3] * 5), LEAVE_OUT)


def test_a_single_training_dialogue_leaves_none_for_validation() -> None:
    with pytest.raises(PipelineError, match="no dialogue for validation"):
        make_folds(sessions([9], [9]), LEAVE_OUT)


def test_an_unknown_protocol_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'leave-one-session-out'"):
        make_folds(sessions([3] * 3, [3] * 3), "leave-one-sesion-out")


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("official:3", "takes no argument: write official"),
        ("group-folds", "write group-folds:COLUMN:K, such as group-folds:speaker:10"),
        ("group-folds:speaker", "a number of folds, 2 or more: write group-folds:speaker:10"),
        ("group-folds:speaker:1", "a number of folds, 2 or more"),
        ("group-folds:speaker:ten", "a number of folds, 2 or more"),
        ("group-folds:speaker:5", "needs 5 speakers or more, but this corpus has 4"),
        ("group-folds:label:5", "cannot be split by label: choose speaker, session, dialogue"),
        ("group-folds:speeker:5", "did you mean 'speaker'.*known: dialogue, id, session"),
        (
            "group-folds:text:5",
            "needs the column text, which this .*: choose another protocol, by",
        ),
        ("hold-out:session", "needs the session of the test part: write hold-out:session=VALUE"),
        ("hold-out:label=neutral", "cannot be split by label"),
        ("hold-out:session=ses3", r"unknown session .*'ses3'.*known: ses1, ses2"),
        ("hold-out:session=", r"unknown session .*known: ses1, ses2"),
        ("holdout:session=ses1", "did you mean 'hold-out'"),
        ("file:", "write file:PATH"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_right_form(protocol: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_corpus(sessions([3] * 3, [3] * 3), protocol)


def test_a_corpus_of_texts_and_labels_alone_needs_a_column_to_split_by() -> None:
    bare: dict[str, Any] = {
        "speaker": None,
        "session": None,
        "dialogue": None,
        "split": None,
        "text": "Oh no.",
    }
    corpus = [replace(utterance, **bare) for utterance in sessions([3] * 3, [3] * 3)]
    with pytest.raises(UsageError, match="give the corpus a column split, session or speaker, and"):
        split_corpus(corpus, "leave-one-session-out")
