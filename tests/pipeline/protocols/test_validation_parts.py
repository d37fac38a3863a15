"""The validation part: cut by session, speaker or dialogue, as the user chooses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit

from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.protocols.folds import cut_validation
from mser.pipeline.protocols.protocols import split_corpus
from mser.tests.support.small_corpora import (
    actors,
    check_each_is_tested_once,
    column,
    dialogues,
    ids,
    make_folds,
    official,
    parts,
    sessions,
)

FIVE_SESSIONS = [[4, 3], [2, 5], [6], [3, 3, 2], [5, 4]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=200).filter(lambda x: len(set(x)) > 1))
def test_the_cut_is_that_of_scikit_learn(numbers: list[int]) -> None:
    one = actors([1])[0]
    corpus = [replace(one, id=f"u{n}", dialogue=f"d{i}") for n, i in enumerate(numbers)]
    splitter = GroupShuffleSplit(1, test_size=0.15, random_state=0)
    train, validation = next(splitter.split(corpus, groups=[u.dialogue for u in corpus]))
    cut = cut_validation(corpus)
    assert [u.id for u in cut[0]] == [f"u{n}" for n in train]
    assert [u.id for u in cut[1]] == [f"u{n}" for n in validation]


# Without sessions ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_leave_one_speaker_out_without_sessions(sizes: list[int], random: Any) -> None:
    ordered = actors(sizes)
    corpus = list(ordered)
    random.shuffle(corpus)
    folds = make_folds(corpus, "leave-one-speaker-out")
    assert [fold.name for fold in folds] == sorted({str(u.speaker) for u in corpus})
    check_each_is_tested_once(corpus, folds)
    for fold, same in zip(folds, make_folds(ordered, "leave-one-speaker-out"), strict=True):
        train, validation, test = (column(part, "speaker") for part in parts(fold))
        assert test == {fold.name}
        assert len(train | validation | test) == len(train) + len(validation) + len(test)
        # 15 % of the other speakers, rounded up
        assert len(validation) == -(-15 * (len(sizes) - 1) // 100)
        assert [ids(part) for part in parts(fold)] == [ids(part) for part in parts(same)]


def test_speakers_may_share_dialogues_but_not_parts() -> None:
    corpus = [replace(utterance, dialogue="all") for utterance in actors([3] * 6)]
    assert len(make_folds(corpus, "leave-one-speaker-out")) == 6
    columns = split_corpus(corpus, "leave-one-speaker-out").disjoint_columns
    assert set(columns.values()) == {("id", "speaker")}


@pytest.mark.parametrize(
    ("by", "columns"),
    [
        (None, ("id", "dialogue")),
        ("speaker", ("id", "speaker")),
        ("session", ("id", "dialogue", "session")),
    ],
)
def test_training_and_validation_share_no_value_of_the_column(
    by: str | None, columns: tuple[str, ...]
) -> None:
    splits = split_corpus(sessions(*FIVE_SESSIONS), "leave-one-session-out", validation=by)
    assert splits.disjoint_columns["train", "validation"] == columns
    assert "speaker" in splits.disjoint_columns["train", "test"]


def test_two_speakers_leave_none_for_validation() -> None:
    with pytest.raises(PipelineError, match="only one speaker, which leaves no speaker for"):
        make_folds(actors([3, 3]), "leave-one-speaker-out")


# The choice of the user ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    [
        *("leave-one-session-out", "leave-one-speaker-out", "speaker-folds"),
        *("group-folds:session:5", "group-folds:dialogue:4", "hold-out:session=ses2"),
    ],
)
@pytest.mark.parametrize("by", ["session", "speaker", "dialogue"])
def test_the_validation_part_consists_of_whole_values(protocol: str, by: str) -> None:
    corpus = sessions(*FIVE_SESSIONS)
    default = make_folds(corpus, protocol)
    for fold, usual in zip(make_folds(corpus, protocol, by), default, strict=True):
        assert all(parts(fold))
        assert ids(fold.test) == ids(usual.test)
        assert not column(fold.train, by) & column(fold.validation, by)
        groups = column(fold.train, by) | column(fold.validation, by)
        assert len(column(fold.validation, by)) == -(-15 * len(groups) // 100)


@pytest.mark.parametrize(
    ("protocol", "default"),
    [
        ("leave-one-session-out", "dialogue"),
        ("speaker-folds", "speaker"),
        ("group-folds:session:5", "dialogue"),
        ("hold-out:speaker=ses1_f", "speaker"),
    ],
)
def test_the_default_is_not_a_choice(protocol: str, default: str) -> None:
    corpus = sessions(*FIVE_SESSIONS)
    usual = split_corpus(corpus, protocol)
    for by in ("session", "speaker", "dialogue"):
        splits = split_corpus(corpus, protocol, validation=by)
        assert splits.validation == (None if by == default else by)
        assert (splits.folds == usual.folds) == (by == default)


def test_the_other_speakers_of_a_session_are_not_used_if_validation_is_cut() -> None:
    corpus = sessions(*FIVE_SESSIONS)
    for fold in make_folds(corpus, "leave-one-speaker-out", "speaker"):
        session = fold.name.split("_")[0]
        assert session not in column(fold.train + fold.validation, "session")
        assert ids(fold.train + fold.validation) == ids(u for u in corpus if u.session != session)
    alone = [*corpus, *dialogues([3], "x", session="ses6", speaker="ses6_f")]
    with pytest.raises(UsageError, match="or give --validation"):
        make_folds(alone, "leave-one-speaker-out")
    assert len(make_folds(alone, "leave-one-speaker-out", "session")) == 11


def test_a_validation_part_of_the_corpus_is_not_replaced() -> None:
    with pytest.raises(UsageError, match="the corpus has its own: leave out --validation"):
        make_folds(official(), "official", "dialogue")
    whole = official(validation=False)
    several = [replace(u, speaker=f"s{n % 4}") for n, u in enumerate(whole)]
    (fold,) = make_folds(several, "official", "speaker")
    assert not column(fold.train, "speaker") & column(fold.validation, "speaker")


def test_a_validation_part_of_a_split_file_is_not_replaced(tmp_path: Path) -> None:
    corpus = sessions(*FIVE_SESSIONS)

    def write(name: str, *validation: Utterance) -> str:
        test = [u.id for u in corpus if u.session == "ses1"]
        rest = [u.id for u in corpus if u.session != "ses1" and u not in validation]
        fold = {"fold": "one", "train": rest, "test": test}
        fold |= {"validation": [u.id for u in validation]} if validation else {}
        (tmp_path / name).write_text(json.dumps({"folds": [fold]}))
        return f"file:{tmp_path / name}"

    own = write("own.json", corpus[-1])
    with pytest.raises(UsageError, match=r"fold 'one' of .*own.json has its own: leave out"):
        make_folds(corpus, own, "session")
    (fold,) = make_folds(corpus, write("cut.json"), "session")
    assert len(column(fold.validation, "session")) == 1
    assert not column(fold.train, "session") & column(fold.validation, "session")
    cut = write("cut.json")
    assert split_corpus(corpus, cut, validation="session").validation == "session"
    assert split_corpus(corpus, cut, validation="dialogue").validation is None


@pytest.mark.parametrize(
    ("missing", "by", "message"),
    [
        (
            *("session", "session"),
            "validation by session needs the column session, which this corpus does not have: "
            "give --validation speaker or dialogue, or leave it out",
        ),
        ("dialogue", "dialogue", "validation by dialogue needs the column dialogue"),
        ("speaker", "speaker", "give --validation session or dialogue, or"),
        ("text", "sesion", "unknown validation 'sesion': did you mean 'session'"),
        ("text", "text", "unknown validation 'text'"),
    ],
)
def test_a_choice_that_the_corpus_does_not_allow(missing: str, by: str, message: str) -> None:
    nothing: dict[str, Any] = {missing: None}
    corpus = [replace(utterance, **nothing) for utterance in sessions(*FIVE_SESSIONS)]
    with pytest.raises(UsageError, match=message):
        make_folds(corpus, "group-folds:id:3", by)


def test_too_few_values_for_the_choice() -> None:
    message = "only one session, which leaves no session for validation: choose another protocol or"
    with pytest.raises(PipelineError, match=message):
        make_folds(sessions([4, 4], [5, 4]), "leave-one-session-out", "session")
