"""The bootstrap by counts equals a bootstrap of utterances, and its intervals are calibrated."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.evaluation.bootstrap import (
    bootstrap,
    interval,
    metric_differences,
    p_value,
    resampling_units,
)
from mser.pipeline.evaluation.registry import METRICS, scores_of
from mser.tests.support.predicted_runs import counted

CLASSES = st.sampled_from(["ang", "hap", "neu", "sad"])
# A label and the predictions of two seeds.
ROWS = st.lists(st.tuples(CLASSES, CLASSES, CLASSES), min_size=1, max_size=25)


def units(rows, groups=None):
    return resampling_units([row[0] for row in rows], [row[1:] for row in rows], groups)


def noisy(rng, labels, correct):
    """Predictions of which at least about the share ``correct`` is correct."""
    others = rng.choice(["ang", "hap", "neu", "sad"], size=len(labels))
    return list(np.where(rng.random(len(labels)) < correct, labels, others))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_a_sample_scores_like_the_list_of_its_utterances(rows, data):
    # A sample may lack classes, and some classes may only be predicted.
    collected = units(rows)
    distinct = list(dict.fromkeys(rows))
    assert collected.counts.tolist() == [rows.count(row) for row in distinct]
    times = data.draw(
        st.lists(st.integers(0, 3), min_size=len(distinct), max_size=len(distinct)).filter(any)
    )
    drawn = [row for row, count in zip(distinct, times, strict=True) for _ in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores_of(collected.confusions_of(np.array([times])))
    for seed in (0, 1):
        expected = counted([row[0] for row in drawn], [row[1 + seed] for row in drawn])
        assert {name: found[name][0, seed] for name in found} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.data())
def test_groups_are_drawn_whole(rows, data):
    groups = [data.draw(st.sampled_from("xyz")) for _ in rows]
    names = list(dict.fromkeys(groups))
    times = data.draw(
        st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names)).filter(any)
    )
    drawn = [
        row
        for name, count in zip(names, times, strict=True)
        for row, group in zip(rows, groups, strict=True)
        for _ in range(count)
        if group == name
    ]
    collected = units(rows, groups)
    assert collected.counts.tolist() == [1] * len(names)
    found = scores_of(collected.confusions_of(np.array([times])))
    for seed in (0, 1):
        expected = counted([row[0] for row in drawn], [row[1 + seed] for row in drawn])
        assert {name: found[name][0, seed] for name in found} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_the_counts_of_the_data_give_the_scores_of_the_data(rows):
    collected = units(rows)
    found = scores_of(collected.confusions_of(collected.counts[None]))
    for seed in (0, 1):
        expected = counted([row[0] for row in rows], [row[1 + seed] for row in rows])
        assert {name: found[name][0, seed] for name in found} == pytest.approx(expected, abs=1e-12)


def test_a_sample_has_the_size_and_on_average_the_proportions_of_the_data():
    collected = units([("ang", "ang")] * 6 + [("ang", "hap")] * 3 + [("hap", "hap")])
    drawn = collected.draw(4000, np.random.default_rng(1))
    assert (drawn.sum(axis=1) == 10).all()
    np.testing.assert_allclose(drawn.mean(axis=0), [6, 3, 1], atol=0.15)
    # of n draws with replacement: n p (1 - p)
    np.testing.assert_allclose(drawn.var(axis=0), [2.4, 2.1, 0.9], rtol=0.12)


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_equal_those_of_a_bootstrap_by_indices(grouped):
    rng = np.random.default_rng(3)
    labels = noisy(rng, np.array(["neu"] * 60), 0.4)
    predicted = noisy(rng, np.array(labels), 0.5)
    groups = [str(n // 4) for n in range(60)]
    slow = []
    for _ in range(1500):
        if grouped:
            chosen = [4 * group + n for group in rng.integers(0, 15, size=15) for n in range(4)]
        else:
            chosen = list(rng.integers(0, 60, size=60))
        slow.append(counted([labels[n] for n in chosen], [predicted[n] for n in chosen]))
    rows = list(zip(labels, predicted, strict=True))
    fast = bootstrap(units(rows, groups if grouped else None), 4000)
    for metric in METRICS:
        values = np.array([sample[metric] for sample in slow])
        assert interval(fast[metric][:, 0]) == pytest.approx(interval(values), abs=0.03)
        assert fast[metric].mean() == pytest.approx(values.mean(), abs=0.01)


def test_the_interval_of_accuracy_equals_the_normal_approximation():
    rows = [("ang", "ang")] * 630 + [("ang", "hap")] * 370
    low, high = interval(bootstrap(units(rows), 4000)["wa"][:, 0])
    half = 1.96 * (0.63 * 0.37 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.63 - half, 0.63 + half), abs=0.003)


def test_seeds_that_agree_do_not_narrow_the_interval():
    rng = np.random.default_rng(4)
    labels = ["ang", "hap"] * 100
    predicted = noisy(rng, np.array(labels), 0.5)
    one = bootstrap(units(list(zip(labels, predicted, strict=True))))["wa"].mean(axis=1)
    five = bootstrap(units(list(zip(labels, *[predicted] * 5, strict=True))))["wa"].mean(axis=1)
    assert interval(five) == pytest.approx(interval(one), abs=1e-12)


def test_groups_of_dependent_utterances_widen_the_interval():
    rng = np.random.default_rng(5)
    # All 20 utterances of a speaker are correct, or none.
    correct = np.repeat(rng.random(30) < 0.6, 20)
    rows = [("ang", "ang" if hit else "hap") for hit in correct]
    groups = [n // 20 for n in range(600)]
    (low, high), (wide_low, wide_high) = (
        interval(bootstrap(units(rows, some))["wa"][:, 0]) for some in (None, groups)
    )
    assert wide_high - wide_low > 3 * (high - low)


def test_the_samples_depend_on_the_seed_but_not_on_the_batch_size(monkeypatch):
    rows = [("ang", "ang"), ("ang", "hap"), ("hap", "hap"), ("neu", "hap")] * 5
    found = bootstrap(units(rows), 1203)
    assert found["ua"].shape == (1203, 1)
    assert np.array_equal(found["ua"], bootstrap(units(rows), 1203)["ua"])
    assert not np.array_equal(found["ua"], bootstrap(units(rows), 1203, seed=1)["ua"])
    monkeypatch.setattr("mser.pipeline.evaluation.bootstrap._BATCH", 7)
    assert np.array_equal(found["ua"], bootstrap(units(rows), 1203)["ua"])


def test_p_value_by_hand():
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.ones(99)) == 2 / 100
    assert p_value(-np.ones(99)) == 2 / 100
    assert p_value(np.array([-1.0] * 4 + [0.0] * 1 + [1.0] * 94)) == 2 * (1 + 5) / 100


def test_p_values_of_equal_runs_are_calibrated():
    rng = np.random.default_rng(6)
    labels = np.array(["ang", "hap", "neu", "sad"] * 50)
    p_values = []
    for _ in range(200):
        both = units(
            list(zip(labels, noisy(rng, labels, 0.5), noisy(rng, labels, 0.5), strict=True))
        )
        samples = bootstrap(both, 300)["ua"]
        p_values.append(p_value(metric_differences(samples[:, :1], samples[:, 1:])))
    # At a level of 5 %, 10 of 200 are expected, with a standard deviation of 3.
    assert sum(p < 0.05 for p in p_values) <= 22
    assert 0.35 < np.mean(p_values) < 0.65


def test_differences_do_not_depend_on_the_order_of_seeds():
    first = np.array([[0.1, 0.2, 0.3]])
    assert metric_differences(first, first[:, ::-1]).tolist() == [0.0]
    assert metric_differences(first, np.array([[0.5]])).tolist() == [0.3]


def test_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="no utterance"):
        resampling_units([], [])
    with pytest.raises(ValueError, match="zip"):
        resampling_units(["ang"], [("ang",), ("hap",)])
    with pytest.raises(ValueError, match="zip"):
        resampling_units(["ang"], [("ang",)], ["x", "y"])
