"""The leakage check: shared values, errors and the printed lines."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError
from mser.pipeline.protocols.folds import PAIRS, PARTS, Fold
from mser.pipeline.protocols.leakage import CHECKED_COLUMNS, Leakage, check_leakage
from mser.pipeline.protocols.protocols import split_corpus
from mser.tests.support.small_corpora import actors, official, sessions, utterance

NOTHING: dict[tuple[str, str], tuple[str, ...]] = dict.fromkeys(PAIRS, ())


def fold(*utterances: Iterable[Utterance], name: str = "one") -> Fold:
    train, validation, test = map(tuple, utterances)
    return Fold(name, train, validation, test)


def shared(leakage: Leakage) -> dict[tuple[str, str, str], tuple[int, tuple[int, int]]]:
    return {(*row.parts, row.column): (len(row.values), row.utterances) for row in leakage.shared}


def test_each_column_is_counted_for_each_pair_of_parts() -> None:
    train = [
        utterance("a", text="Yes. ", speaker="joey", dialogue="d1"),
        utterance("b", text="No.", speaker="ross", dialogue="d1"),
        utterance("c", text="No!", speaker="ross", dialogue="d2"),
    ]
    validation = [utterance("d", text="Oh.", speaker="joey", session="s1")]
    test = [
        utterance("e", text="yes.", speaker="ross", dialogue="d1", session="s1"),
        utterance("f", text=" YES.", speaker="joey", dialogue="d3"),
        utterance("g", text="Well.", speaker="joey", dialogue="d3"),
    ]
    hashes = {"a": "0a", "b": "0b", "f": "0b", "g": None, "d": None}
    leakage = check_leakage([fold(train, validation, test)], NOTHING, hashes)
    assert shared(leakage) == {
        ("train", "validation", "speaker"): (1, (1, 1)),
        ("train", "test", "audio"): (1, (1, 1)),
        ("train", "test", "speaker"): (2, (3, 3)),
        ("train", "test", "dialogue"): (1, (2, 1)),
        ("train", "test", "text"): (1, (1, 2)),
        ("validation", "test", "speaker"): (1, (1, 2)),
        ("validation", "test", "session"): (1, (1, 1)),
    }
    assert leakage.not_given == ()
    assert leakage.lines() == [
        "train and validation share 1 speaker (in 1 utterance of the validation part)",
        "train and test share 1 audio hash (in 1 utterance of the test part)",
        "train and test share 2 speakers (in 3 utterances of the test part)",
        "train and test share 1 dialogue (in 1 utterance of the test part)",
        "train and test share 1 text (in 2 utterances of the test part)",
        "validation and test share 1 speaker (in 2 utterances of the test part)",
        "validation and test share 1 session (in 1 utterance of the test part)",
        "other parts contain 1 dialogue of the test part (1 test utterance)",
    ]


def test_unknown_and_empty_values_are_not_shared() -> None:
    parts = [[utterance(id, text=" ")] for id in "abc"]
    leakage = check_leakage([fold(*parts)], NOTHING, dict.fromkeys("abc"))
    assert leakage.shared == ()
    assert leakage.lines() == []
    assert leakage.not_given == ("audio", "speaker", "dialogue", "session", "text")
    assert leakage.as_json()["checked"] == ["id"]


def test_lines_summarise_the_folds() -> None:
    def named(name: str, *texts: str) -> Fold:
        return fold(
            [utterance("t", text=texts[0])],
            [utterance("v", text="other")],
            [utterance(f"{name}{n}", text=text) for n, text in enumerate(texts[1:])],
            name=name,
        )

    folds = [named("x", "a", "a", "A"), named("y", "b", "b", "c"), named("z", "a", "b", "c")]
    (line,) = check_leakage([*folds, named("w", "a", "A")], NOTHING).lines()
    # 'a' is shared in x and w and counts once, with three utterances; 'b' is shared in y, with one.
    assert line == "train and test share 2 texts (in 4 utterances of the test part), 3 of 4 folds"


def test_an_utterance_counts_once_in_however_many_folds() -> None:
    train, test = [utterance("t", text="a")], [utterance("x", text="a", dialogue="d")]
    same = [utterance("v", text="a", dialogue="d")]
    folds = [fold(train, same, test, name=str(n)) for n in range(3)]
    lines = check_leakage(folds, NOTHING).lines()
    assert "train and validation share 1 text (in 1 utterance of the validation part)" in lines[0]
    assert lines[-1] == (
        "other parts contain 1 dialogue of the test part (1 test utterance), 3 of 3 folds"
    )


def test_a_column_of_the_user_is_compared() -> None:
    parts = [[utterance(id, text=id)] for id in ("a", "b", "c")]
    scenario = {"a": "script01", "c": "script01"}
    unknown: dict[str, str] = {}
    leakage = check_leakage(
        [fold(*parts)], NOTHING, own_columns={"scenario": scenario, "room": unknown}
    )
    assert shared(leakage) == {("train", "test", "scenario"): (1, (1, 1))}
    assert leakage.lines() == [
        "train and test share 1 value of scenario (in 1 utterance of the test part)"
    ]
    found = leakage.as_json()
    assert "scenario" in found["checked"]
    assert "room" in found["not_given"]


def test_the_json_result_is_complete() -> None:
    splits = split_corpus(sessions([4, 4], [5], [2, 3]), "leave-one-speaker-out")
    found = check_leakage(splits.folds, splits.disjoint_columns).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["checked"] == ["id", "speaker", "dialogue", "session"]
    assert found["not_given"] == ["audio", "text"]
    # Validation and test are two speakers of one session, of which training has nothing.
    assert {tuple(row["parts"]) for row in found["shared"]} == {("validation", "test")}
    assert {row["column"] for row in found["shared"]} == {"session", "dialogue"}
    first = next(r for r in found["shared"] if (r["fold"], r["column"]) == ("ses1_f", "dialogue"))
    assert (first["values"], first["utterances"]) == (2, {"validation": 4, "test": 4})
    assert found["divided_dialogues"][0] == {"fold": "ses1_f", "dialogues": 2, "test": 4}


def test_whole_dialogues_are_not_reported() -> None:
    splits = split_corpus(sessions([4, 4], [5, 2], [2, 3]), "leave-one-session-out")
    leakage = check_leakage(splits.folds, splits.disjoint_columns)
    assert leakage.divided == ()
    assert {row.parts for row in leakage.shared} == {("train", "validation")}


@pytest.mark.parametrize("column", ["speaker", "dialogue", "session", "text", "audio", "id"])
@pytest.mark.parametrize("parts", PAIRS)
def test_a_shared_value_of_a_disjoint_column_is_refused(
    parts: tuple[str, str], column: str
) -> None:
    same = {column: "joey"} if column not in ("audio", "id") else {}
    ids = {"train": "a", "validation": "b", "test": "c"}
    if column == "id":
        ids[parts[1]] = ids[parts[0]]
    made = [
        utterance(ids[part], text=f"I am {part}", **(same if part in parts else {}))
        if column != "text"
        else utterance(ids[part], text="Joey" if part in parts else "no")
        for part in PARTS
    ]
    hashes = {ids[part]: "joey" if part in parts else part for part in PARTS}
    leaking = fold(*([part] for part in made), name="Ses05")
    allowed = {**NOTHING, parts: tuple(name for name in CHECKED_COLUMNS if name != column)}
    if column == "id":
        allowed[parts] = ("speaker",)  # an utterance in both parts shares all its values
    given = hashes if column in ("audio", "id") else {}
    check_leakage([leaking], allowed, given)
    name = "audio hash" if column == "audio" else column
    value = ids[parts[0]] if column == "id" else "joey"
    message = f"fold 'Ses05' leaks: {parts[0]} and {parts[1]} share the {name} '{value}'"
    with pytest.raises(PipelineError, match=message):
        check_leakage([leaking], {**NOTHING, parts: (column,)}, given)


@pytest.mark.parametrize("part", PARTS)
def test_an_utterance_twice_in_a_part_is_refused(part: str) -> None:
    made: dict[str, Sequence[Utterance]] = {name: [utterance(name)] for name in PARTS}
    made[part] = [utterance("other"), utterance("x"), replace(utterance("x"), text="again")]
    with pytest.raises(PipelineError, match=f"the {part} part of fold 'one' contains 'x' 2 times"):
        check_leakage([fold(*(made[part] for part in PARTS))], NOTHING)


def test_official_splits_may_share_speakers_which_is_reported() -> None:
    splits = split_corpus(official(), "official")
    lines = check_leakage(splits.folds, splits.disjoint_columns).lines()
    assert "train and test share 1 speaker (in 12 utterances of the test part)" in lines


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PARTS),
            st.sampled_from([None, "x", "y", "z"]),
            st.sampled_from([None, "p", "q"]),
        ),
        max_size=30,
    )
)
def test_counts_equal_those_of_a_comparison_of_all_pairs(rows: list[tuple[str, Any, Any]]) -> None:
    corpus = [
        (part, utterance(f"u{n}", speaker=speaker, dialogue=dialogue))
        for n, (part, speaker, dialogue) in enumerate(rows)
    ]
    made = {name: [u for part, u in corpus if part == name] for name in PARTS}
    leakage = check_leakage([fold(*(made[part] for part in PARTS))], NOTHING)
    expected = {}
    for first, second in PAIRS:
        for column in ("speaker", "dialogue"):
            both = [
                (a, b)
                for a in made[first]
                for b in made[second]
                if getattr(a, column) is not None and getattr(a, column) == getattr(b, column)
            ]
            if both:
                expected[first, second, column] = (
                    len({getattr(a, column) for a, _ in both}),
                    (len({a.id for a, _ in both}), len({b.id for _, b in both})),
                )
    assert shared(leakage) == expected
    divided = {
        tested.id
        for tested in made["test"]
        if tested.dialogue
        and any(tested.dialogue == u.dialogue for u in (*made["train"], *made["validation"]))
    }
    assert frozenset[str]().union(*(cut.ids for cut in leakage.divided)) == divided


def test_identical_clips_in_two_parts_are_reported() -> None:
    corpus = actors([3] * 10)
    hashes: dict[str, str | None] = {utterance.id: utterance.id for utterance in corpus}
    hashes["1001_0"] = hashes["1002_2"] = "the same"
    splits = split_corpus(corpus, "speaker-folds")
    shared_values = check_leakage(splits.folds, splits.disjoint_columns, hashes).shared
    assert {row.values for row in shared_values if row.column == "audio"} == {
        frozenset(["the same"])
    }
