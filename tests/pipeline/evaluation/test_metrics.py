"""The metrics against scikit-learn and counts by hand, and their aggregation."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    recall_score,
)

from mser.pipeline.evaluation.metrics import (
    Predictions,
    aggregate,
    align_seeds,
    pooled_details,
    pooled_scores,
    scores,
)
from mser.pipeline.evaluation.registry import METRICS, Metric, scores_of
from mser.pipeline.evaluation.scorers import ClassScorer, by_class
from mser.tests.support.predicted_runs import counted

PAIRS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40
)


SCIKIT_LEARN: dict[str, Callable[[list[str], list[str]], float]] = {
    "wa": accuracy_score,
    "ua": lambda labels, predicted: recall_score(
        labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0
    ),
    "weighted_f1": partial(f1_score, average="weighted", zero_division=0),
    "macro_f1": partial(f1_score, average="macro", zero_division=0),
}
"""Metric → the same score by scikit-learn."""


@settings(max_examples=60, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=3))
def test_every_metric_equals_that_of_scikit_learn(samples: list[list[tuple[str, str]]]) -> None:
    # Several confusion matrices at once, with classes that only some of them have.
    lists = [([a for a, _ in pairs], [b for _, b in pairs]) for pairs in samples]
    confusions = np.array([confusion_matrix(*both, labels=list("abcd")) for both in lists])
    found = scores_of(confusions.astype(float))
    assert list(found) == list(SCIKIT_LEARN)
    for name, score in SCIKIT_LEARN.items():
        expected = [score(labels, predicted) for labels, predicted in lists]
        assert found[name] == pytest.approx(expected), name
        assert [scores(*both)[name] for both in lists] == pytest.approx(expected), name


def test_a_metric_is_added_by_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def kappa(confusions: Any) -> Any:
        total = confusions.sum(axis=(-2, -1))
        agreed = np.trace(confusions, axis1=-2, axis2=-1) / total
        by_chance = (confusions.sum(axis=-1) * confusions.sum(axis=-2)).sum(axis=-1) / total**2
        return (agreed - by_chance) / (1 - by_chance)

    monkeypatch.setitem(METRICS, "kappa", Metric("kappa", kappa))
    labels, predicted = ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "a"]
    part = Predictions("one", 0, labels, predicted)
    assert scores(labels, predicted)["kappa"] == pytest.approx(cohen_kappa_score(labels, predicted))
    found = aggregate([part], resamples=100)["kappa"]
    assert found["pooled"] == pytest.approx(cohen_kappa_score(labels, predicted))
    assert found["pooled_ci95"][0] < found["pooled"] < found["pooled_ci95"][1]


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_scores_equal_those_counted_by_hand(pairs: list[tuple[str, str]]) -> None:
    labels, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(labels, predicted)
    assert list(found) == list(METRICS)
    assert all(type(value) is float for value in found.values())
    assert found == pytest.approx(counted(labels, predicted))


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_utterances_does_not_matter(
    pairs: list[tuple[str, str]], random: Random
) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    first, second = (
        scores([a for a, _ in order], [b for _, b in order]) for order in (pairs, shuffled)
    )
    assert first == second


def test_correct_predictions_score_one() -> None:
    assert scores(["a", "b", "b"], ["a", "b", "b"]) == dict.fromkeys(METRICS, 1.0)


def test_a_class_that_is_never_predicted_counts_zero() -> None:
    found = scores(["a", "a", "a", "b"], ["a", "a", "a", "a"])
    f1_of_a = 2 * 3 / (4 + 3)
    assert found == pytest.approx(
        {"wa": 0.75, "ua": 0.5, "weighted_f1": 0.75 * f1_of_a, "macro_f1": f1_of_a / 2}
    )


def test_a_class_without_labels() -> None:
    found = scores(["a", "a", "b", "b"], ["a", "c", "b", "b"])
    f1_of_a = 2 * 1 / (2 + 1)
    assert found == pytest.approx(
        {
            "wa": 0.75,
            "ua": (0.5 + 1) / 2,  # c has no recall and is left out
            "weighted_f1": (2 * f1_of_a + 2 * 1) / 4,  # c has the weight 0
            "macro_f1": (f1_of_a + 1 + 0) / 3,  # c is a class with an F1 of 0
        }
    )


def test_aggregate_equals_values_by_hand() -> None:
    parts = [
        Predictions("one", 0, ["a", "b"], ["a", "b"]),  # WA 1
        Predictions("two", 0, ["a", "a", "a", "b"], ["a", "b", "b", "b"]),  # WA 1/2
        Predictions("one", 7, ["a", "b"], ["b", "a"]),  # WA 0
        Predictions("two", 7, ["a", "a", "a", "b"], ["a", "a", "a", "b"]),  # WA 1
    ]
    found = aggregate(parts)
    assert list(found) == list(METRICS)
    assert found["wa"]["mean"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # deviations from 0.625: 0.375, -0.125, -0.625, 0.375; of a sample: over three, not four
    variance = (0.375**2 + 0.125**2 + 0.625**2 + 0.375**2) / 3
    assert found["wa"]["std"] == pytest.approx(variance**0.5)
    # pooled: 4 of 6 are correct with seed 0, 4 of 6 with seed 7
    assert found["wa"]["pooled"] == pytest.approx(4 / 6)
    # recalls: seed 0 a 2/4, b 2/2; seed 7 a 3/4, b 1/2
    assert found["ua"]["pooled"] == pytest.approx(((0.5 + 1) / 2 + (0.75 + 0.5) / 2) / 2)


def test_a_single_part_has_no_standard_deviation() -> None:
    found = aggregate([Predictions("one", 0, ["a", "b"], ["a", "a"])])
    single = {key: found["wa"][key] for key in ("mean", "std", "pooled", "pooled_std")}
    assert single == {"mean": 0.5, "std": None, "pooled": 0.5, "pooled_std": None}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), PAIRS), min_size=2, max_size=5))
def test_aggregate_summarises_the_scores(drawn: list[tuple[int, list[tuple[str, str]]]]) -> None:
    parts = [
        Predictions(str(n), seed, [a for a, _ in pairs], [b for _, b in pairs])
        for n, (seed, pairs) in enumerate(drawn)
    ]
    found = aggregate(parts, resamples=100)
    each = [counted(list(part.labels), list(part.predicted)) for part in parts]
    for metric in METRICS:
        values = [part[metric] for part in each]
        assert found[metric]["mean"] == pytest.approx(fmean(values))
        assert found[metric]["std"] == pytest.approx(stdev(values))
        pooled = []
        for seed in {seed for seed, _ in drawn}:
            pairs = [pair for other, part in drawn if other == seed for pair in part]
            pooled.append(counted([a for a, _ in pairs], [b for _, b in pairs])[metric])
        assert found[metric]["pooled"] == pytest.approx(fmean(pooled))
        expected = stdev(pooled) if len(pooled) > 1 else None
        assert found[metric]["pooled_std"] == pytest.approx(expected)


# Over seeds, and intervals ------------------------------------------------------------------------


def two_seeds(**changes: Any) -> list[Predictions]:
    """Two folds and two seeds, on the same utterances."""
    parts = [
        Predictions("one", 0, ["a", "b"], ["a", "b"], ["u0", "u1"]),
        Predictions("two", 0, ["a", "a", "b"], ["a", "b", "b"], ["u2", "u3", "u4"]),
        Predictions("one", 7, ["a", "b"], ["b", "a"], ["u0", "u1"]),
        Predictions("two", 7, ["a", "a", "b"], ["a", "a", "b"], ["u2", "u3", "u4"]),
    ]
    return [replace(part, **changes) for part in parts]


def test_pooled_std_is_over_the_pooled_scores_of_the_seeds() -> None:
    assert [seed["wa"] for seed in pooled_scores(two_seeds()).values()] == [4 / 5, 3 / 5]
    found = aggregate(two_seeds())["wa"]
    assert list(found) == ["mean", "std", "pooled", "pooled_std", "pooled_ci95"]
    assert found["pooled"] == pytest.approx(0.7)
    assert found["pooled_std"] == pytest.approx(0.02**0.5)  # (0.1² + 0.1²) / 1
    assert found["std"] == pytest.approx(stdev([1, 2 / 3, 0, 1]))


def test_the_interval_contains_the_pooled_score_and_is_reproducible() -> None:
    found, again = aggregate(two_seeds()), aggregate(two_seeds())
    assert found == again == json.loads(json.dumps(found))
    for metric in METRICS:
        low, high = found[metric]["pooled_ci95"]
        assert 0 <= low < found[metric]["pooled"] < high <= 1
    # Each utterance is correct with both seeds (1) or with one (1/2), so every sample is >= 1/2.
    assert found["wa"]["pooled_ci95"][0] >= 0.5
    assert aggregate(two_seeds(), resamples=100) != found


def test_without_ids_utterances_are_aligned_by_their_position() -> None:
    assert aggregate(two_seeds(ids=())) == aggregate(two_seeds())


def test_utterances_are_aligned_by_their_ids() -> None:
    parts = two_seeds()
    parts[3] = replace(
        parts[3], labels=["b", "a", "a"], predicted=["b", "a", "a"], ids=["u4", "u3", "u2"]
    )
    assert aggregate(parts) == aggregate(two_seeds())


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": ["u2", "u3", "u5"]},  # a different utterance
        {"ids": ["u2", "u3", "u0"]},  # an utterance that was tested already
        {"labels": ["a", "b", "b"]},  # a different label
    ],
)
def test_no_interval_if_the_seeds_test_different_utterances(changed: dict[str, Any]) -> None:
    parts = two_seeds()
    parts[3] = replace(parts[3], **changed)
    assert align_seeds(parts) is None
    found = aggregate(parts)
    assert all(found[metric]["pooled_ci95"] is None for metric in METRICS)
    assert found["wa"]["pooled"] is not None


def test_no_interval_if_two_folds_test_one_utterance() -> None:
    parts = [replace(part, ids=["u0", "u1", "u4"][: len(part.labels)]) for part in two_seeds()]
    assert align_seeds(parts) is None
    assert align_seeds(parts[::2]) is not None  # one fold per seed


def test_aligned_predictions_of_two_seeds() -> None:
    found = align_seeds(two_seeds()[::-1])
    assert found is not None
    assert found.ids == ("u0", "u1", "u2", "u3", "u4")
    assert found.labels == ("a", "b", "a", "a", "b")
    assert found.seeds == (0, 7)
    assert found.predicted == (("a", "b"), ("b", "a"), ("a", "a"), ("b", "a"), ("b", "b"))


def test_groups_are_drawn_whole() -> None:
    # Two dialogues, one all correct and one all wrong: a sample has 2, 1 or 0 of the first.
    part = Predictions("one", 0, ["a"] * 20, ["a"] * 10 + ["b"] * 10, [f"u{n}" for n in range(20)])
    groups = {f"u{n}": str(n // 10) for n in range(20)}
    assert aggregate([part], groups=groups)["wa"]["pooled_ci95"] == [0, 1]
    low, high = aggregate([part])["wa"]["pooled_ci95"]
    assert 0.2 < low < high < 0.8


# Class by class -----------------------------------------------------------------------------------


def test_scores_per_class_equal_values_by_hand_in_the_given_order() -> None:
    found = by_class(["b", "b", "a", "c"], ["b", "a", "a", "a"], ["c", "b", "a", "d"])
    assert list(found["per_class"]) == ["c", "b", "a", "d"]
    assert found == {
        "per_class": {
            "c": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1},
            "b": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
            "a": {"precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "support": 1},
            "d": {"precision": None, "recall": None, "f1": None, "support": 0},
        },
        #              c  b  a  d predicted
        "confusion": [[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    }


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_scores_per_class_add_up_to_the_scores(pairs: list[tuple[str, str]]) -> None:
    labels, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = by_class(labels, predicted, "dcba")
    assert found == json.loads(json.dumps(found))
    each = found["per_class"].values()
    total = scores(labels, predicted)
    assert total["ua"] == pytest.approx(
        fmean(row["recall"] for row in each if row["recall"] is not None)
    )
    assert total["macro_f1"] == pytest.approx(
        fmean(row["f1"] for row in each if row["f1"] is not None)
    )
    assert total["weighted_f1"] == pytest.approx(
        sum((row["f1"] or 0) * row["support"] for row in each) / len(pairs)
    )
    for row, label in enumerate("dcba"):
        for column, prediction in enumerate("dcba"):
            assert found["confusion"][row][column] == pairs.count((label, prediction))


def test_scores_per_class_are_pooled_over_folds_and_seeds() -> None:
    found = pooled_details(two_seeds(), ClassScorer(("a", "b", "c")))
    # recall of a: 2/3 with seed 0, 2/3 with seed 7; of b: 2/2 and 1/2
    assert found["per_class"]["a"]["recall"] == pytest.approx(2 / 3)
    assert found["per_class"]["b"]["recall"] == pytest.approx(0.75)
    # precision of a: 2/2 with seed 0, 2/3 with seed 7
    assert found["per_class"]["a"]["precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["per_class"]["a"]["support"] == 6
    undefined = {"precision": None, "recall": None, "f1": None, "support": 0}
    assert found["per_class"]["c"] == undefined
    assert found["confusion"] == [[4, 2, 0], [1, 3, 0], [0, 0, 0]]
    pooled = aggregate(two_seeds())
    recalls = [found["per_class"][name]["recall"] for name in "ab"]
    assert pooled["ua"]["pooled"] == pytest.approx(fmean(recalls))


def test_an_undefined_precision_of_one_seed_is_left_out_of_the_mean() -> None:
    predicted = (["a", "a"], ["a", "b"])
    parts = [Predictions("one", seed, ["a", "b"], row) for seed, row in enumerate(predicted)]
    assert pooled_details(parts, ClassScorer(("a", "b")))["per_class"]["b"]["precision"] == 1
