"""The bootstrap by counts is the bootstrap of utterances, and its intervals mean what they say."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.evaluation.bootstrap import (
    bootstrap,
    differences,
    interval,
    p_value,
    scores_of,
    units,
)
from mser.pipeline.evaluation.metrics import METRICS, scores
from mser.tests.pipeline.evaluation.test_metrics import counted

CLASSES = st.sampled_from(["ang", "hap", "neu", "sad"])
# A label, and what two seeds say.
ROWS = st.lists(st.tuples(CLASSES, CLASSES, CLASSES), min_size=1, max_size=25)


def of(rows, groups=None):
    return units([row[0] for row in rows], [row[1:] for row in rows], groups)


def noisy(rng, labels, right):
    """Predictions of which about ``right`` are right."""
    wrong = rng.choice(["ang", "hap", "neu", "sad"], size=len(labels))
    return list(np.where(rng.random(len(labels)) < right, labels, wrong))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_scores_of_a_draw_are_those_of_the_list_that_was_drawn(rows, data):
    # Classes get lost in draws, and some are only ever predicted.
    drawable = of(rows)
    distinct = list(dict.fromkeys(rows))
    assert drawable.counts.tolist() == [rows.count(row) for row in distinct]
    times = data.draw(
        st.lists(st.integers(0, 3), min_size=len(distinct), max_size=len(distinct)).filter(any)
    )
    drawn = [row for row, count in zip(distinct, times, strict=True) for _ in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores_of(drawable.confusions(np.array([times])))
    for seed in (0, 1):
        expected = scores([row[0] for row in drawn], [row[1 + seed] for row in drawn])
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
    drawable = of(rows, groups)
    assert drawable.counts.tolist() == [1] * len(names)
    found = scores_of(drawable.confusions(np.array([times])))
    for seed in (0, 1):
        expected = scores([row[0] for row in drawn], [row[1 + seed] for row in drawn])
        assert {name: found[name][0, seed] for name in found} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_the_data_themselves_score_as_they_do(rows):
    drawable = of(rows)
    found = scores_of(drawable.confusions(drawable.counts[None]))
    for seed in (0, 1):
        expected = scores([row[0] for row in rows], [row[1 + seed] for row in rows])
        assert {name: found[name][0, seed] for name in found} == pytest.approx(expected, abs=1e-12)


def test_each_draw_has_as_many_utterances_as_the_data_in_the_same_proportions():
    drawable = of([("ang", "ang")] * 6 + [("ang", "hap")] * 3 + [("hap", "hap")])
    drawn = drawable.drawn(4000, np.random.default_rng(1))
    assert (drawn.sum(axis=1) == 10).all()
    np.testing.assert_allclose(drawn.mean(axis=0), [6, 3, 1], atol=0.15)
    # of n draws with replacement: n p (1 - p)
    np.testing.assert_allclose(drawn.var(axis=0), [2.4, 2.1, 0.9], rtol=0.12)


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_those_of_a_bootstrap_by_indices(grouped):
    rng = np.random.default_rng(3)
    labels = noisy(rng, np.array(["neu"] * 60), 0.4)
    said = noisy(rng, np.array(labels), 0.5)
    groups = [str(at // 4) for at in range(60)]
    slow = []
    for _ in range(1500):
        if grouped:
            chosen = [4 * at + n for at in rng.integers(0, 15, size=15) for n in range(4)]
        else:
            chosen = list(rng.integers(0, 60, size=60))
        slow.append(counted([labels[at] for at in chosen], [said[at] for at in chosen]))
    rows = list(zip(labels, said, strict=True))
    fast = bootstrap(of(rows, groups if grouped else None), 4000)
    for metric in METRICS:
        values = np.array([one[metric] for one in slow])
        assert interval(fast[metric][:, 0]) == pytest.approx(interval(values), abs=0.03)
        assert fast[metric].mean() == pytest.approx(values.mean(), abs=0.01)


def test_the_interval_of_accuracy_is_the_one_of_the_textbook():
    rows = [("ang", "ang")] * 630 + [("ang", "hap")] * 370
    low, high = interval(bootstrap(of(rows), 4000)["wa"][:, 0])
    half = 1.96 * (0.63 * 0.37 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.63 - half, 0.63 + half), abs=0.003)


def test_seeds_that_agree_do_not_narrow_the_interval():
    rng = np.random.default_rng(4)
    labels = ["ang", "hap"] * 100
    said = noisy(rng, np.array(labels), 0.5)
    one = bootstrap(of(list(zip(labels, said, strict=True))))["wa"].mean(axis=1)
    five = bootstrap(of(list(zip(labels, *[said] * 5, strict=True))))["wa"].mean(axis=1)
    assert interval(five) == pytest.approx(interval(one), abs=1e-12)


def test_dependent_utterances_widen_the_interval_by_groups():
    rng = np.random.default_rng(5)
    # A speaker is understood in all of 20 utterances, or in none.
    right = np.repeat(rng.random(30) < 0.6, 20)
    rows = [("ang", "ang" if one else "hap") for one in right]
    groups = [at // 20 for at in range(600)]
    (low, high), (wide_low, wide_high) = (
        interval(bootstrap(of(rows, some))["wa"][:, 0]) for some in (None, groups)
    )
    assert wide_high - wide_low > 3 * (high - low)


def test_the_same_seed_gives_the_same_draws_however_many_are_made_at_once(monkeypatch):
    rows = [("ang", "ang"), ("ang", "hap"), ("hap", "hap"), ("neu", "hap")] * 5
    found = bootstrap(of(rows), 1203)
    assert found["ua"].shape == (1203, 1)
    assert np.array_equal(found["ua"], bootstrap(of(rows), 1203)["ua"])
    assert not np.array_equal(found["ua"], bootstrap(of(rows), 1203, seed=1)["ua"])
    monkeypatch.setattr("mser.pipeline.evaluation.bootstrap._AT_ONCE", 7)
    assert np.array_equal(found["ua"], bootstrap(of(rows), 1203)["ua"])


def test_p_value_by_hand():
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.ones(99)) == 2 / 100
    assert p_value(-np.ones(99)) == 2 / 100
    assert p_value(np.array([-1.0] * 4 + [0.0] * 1 + [1.0] * 94)) == 2 * (1 + 5) / 100


def test_p_value_keeps_its_level_where_there_is_no_difference():
    rng = np.random.default_rng(6)
    labels = np.array(["ang", "hap", "neu", "sad"] * 50)
    found = []
    for _ in range(200):
        both = of(list(zip(labels, noisy(rng, labels, 0.5), noisy(rng, labels, 0.5), strict=True)))
        drawn = bootstrap(both, 300)["ua"]
        found.append(p_value(differences(drawn[:, :1], drawn[:, 1:])))
    # Of 200 at a level of 5 %: 10 are expected, with a standard deviation of 3.
    assert sum(p < 0.05 for p in found) <= 22
    assert 0.35 < np.mean(found) < 0.65


def test_differences_are_of_means_over_seeds_whatever_their_order():
    first = np.array([[0.1, 0.2, 0.3]])
    assert differences(first, first[:, ::-1]).tolist() == [0.0]
    assert differences(first, np.array([[0.5]])).tolist() == [0.3]


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="no utterance"):
        units([], [])
    with pytest.raises(ValueError, match="zip"):
        units(["ang"], [("ang",), ("hap",)])
    with pytest.raises(ValueError, match="zip"):
        units(["ang"], [("ang",)], ["x", "y"])
