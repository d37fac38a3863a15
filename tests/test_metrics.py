"""Scores against counting by hand: what WA, UA and the F1 scores mean here."""

import warnings
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.metrics import METRICS, Predictions, aggregate, scores

PAIRS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40
)


def counted(labels: list[str], predicted: list[str]) -> dict[str, float]:
    """The same scores, counted in loops from their definitions."""
    pairs = list(zip(labels, predicted, strict=True))
    right = sum(label == said for label, said in pairs)
    recalls, f1, weighted = [], [], 0.0
    for name in sorted({*labels, *predicted}):
        true = sum(label == said == name for label, said in pairs)
        there = sum(label == name for label in labels)
        said = sum(one == name for one in predicted)
        if there:
            recalls.append(true / there)
        f1.append(2 * true / (there + said))
        weighted += there * f1[-1]
    return {
        "wa": right / len(pairs),
        "ua": sum(recalls) / len(recalls),
        "weighted_f1": weighted / len(pairs),
        "macro_f1": sum(f1) / len(f1),
    }


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_scores_are_what_counting_gives(pairs: list[tuple[str, str]]) -> None:
    labels, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(labels, predicted)
    assert tuple(found) == METRICS
    assert all(type(value) is float for value in found.values())
    assert found == pytest.approx(counted(labels, predicted))


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_utterances_does_not_matter(
    pairs: list[tuple[str, str]], random: Random
) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one, other = (scores([a for a, _ in some], [b for _, b in some]) for some in (pairs, shuffled))
    assert one == other


def test_all_right_is_one() -> None:
    assert scores(["a", "b", "b"], ["a", "b", "b"]) == dict.fromkeys(METRICS, 1.0)


def test_a_class_that_is_never_predicted_counts_zero() -> None:
    found = scores(["a", "a", "a", "b"], ["a", "a", "a", "a"])
    f1_of_a = 2 * 3 / (4 + 3)
    assert found == pytest.approx(
        {"wa": 0.75, "ua": 0.5, "weighted_f1": 0.75 * f1_of_a, "macro_f1": f1_of_a / 2}
    )


def test_a_class_that_no_label_has() -> None:
    found = scores(["a", "a", "b", "b"], ["a", "c", "b", "b"])
    f1_of_a = 2 * 1 / (2 + 1)
    assert found == pytest.approx(
        {
            "wa": 0.75,
            "ua": (0.5 + 1) / 2,  # c has no recall, and is not counted as one of 0
            "weighted_f1": (2 * f1_of_a + 2 * 1) / 4,  # c weighs nothing
            "macro_f1": (f1_of_a + 1 + 0) / 3,  # c is a class with an F1 of 0
        }
    )


def test_aggregate_by_hand() -> None:
    parts = [
        Predictions("one", 0, ["a", "b"], ["a", "b"]),  # WA 1
        Predictions("two", 0, ["a", "a", "a", "b"], ["a", "b", "b", "b"]),  # WA 1/2
        Predictions("one", 7, ["a", "b"], ["b", "a"]),  # WA 0
        Predictions("two", 7, ["a", "a", "a", "b"], ["a", "a", "a", "b"]),  # WA 1
    ]
    found = aggregate(parts)
    assert tuple(found) == METRICS
    assert found["wa"]["mean"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # deviations from 0.625: 0.375, -0.125, -0.625, 0.375; of a sample: over three, not four
    variance = (0.375**2 + 0.125**2 + 0.625**2 + 0.375**2) / 3
    assert found["wa"]["std"] == pytest.approx(variance**0.5)
    # pooled: 4 of 6 right with seed 0, 4 of 6 with seed 7
    assert found["wa"]["pooled"] == pytest.approx(4 / 6)
    # recalls: seed 0 a 2/4, b 2/2; seed 7 a 3/4, b 1/2
    assert found["ua"]["pooled"] == pytest.approx(((0.5 + 1) / 2 + (0.75 + 0.5) / 2) / 2)


def test_a_single_part_has_no_standard_deviation() -> None:
    found = aggregate([Predictions("one", 0, ["a", "b"], ["a", "a"])])
    assert found["wa"] == {"mean": 0.5, "std": None, "pooled": 0.5}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), PAIRS), min_size=2, max_size=5))
def test_aggregate_is_made_of_scores(drawn: list[tuple[int, list[tuple[str, str]]]]) -> None:
    parts = [
        Predictions(str(n), seed, [a for a, _ in pairs], [b for _, b in pairs])
        for n, (seed, pairs) in enumerate(drawn)
    ]
    found = aggregate(parts)
    each = [counted(list(part.labels), list(part.predicted)) for part in parts]
    for metric in METRICS:
        values = [one[metric] for one in each]
        assert found[metric]["mean"] == pytest.approx(fmean(values))
        assert found[metric]["std"] == pytest.approx(stdev(values))
        pooled = []
        for seed in {seed for seed, _ in drawn}:
            pairs = [pair for one, some in drawn if one == seed for pair in some]
            pooled.append(counted([a for a, _ in pairs], [b for _, b in pairs])[metric])
        assert found[metric]["pooled"] == pytest.approx(fmean(pooled))
