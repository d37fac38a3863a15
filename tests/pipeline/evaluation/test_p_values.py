"""P values as text, and McNemar's test."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.evaluation.compare import mcnemar, p_text
from mser.pipeline.evaluation.metrics import AlignedPredictions

# P values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "smallest", "text"),
    [
        (0.0312, 0.001, "0.031"),
        (2 / 2001, 2 / 2001, "< 0.001"),
        (2 / 301, 2 / 301, "< 0.0067"),
        (2 / 451, 2 / 451, "< 0.0045"),  # 0.00443 is not less than 0.0044
        (0.0, 1e-300, "< 1e-300"),
        (1.0, 0.001, "1"),
    ],
)
def test_a_p_value_as_text(p, smallest, text):
    assert p_text(p, smallest) == text
    if text.startswith("<"):
        assert float(text[1:]) > p
    else:
        assert p_text(p, smallest, "= ") == f"= {text}"


# McNemar's test -----------------------------------------------------------------------------------


def aligned(labels, *seeds) -> AlignedPredictions:
    return AlignedPredictions(
        tuple(range(len(labels))),
        tuple(labels),
        tuple(zip(*seeds, strict=True)),
        (*range(len(seeds)),),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 5))
def test_mcnemar_is_a_sum_of_binomials(only_first, only_second, both):
    labels = "a" * (only_first + only_second + both)
    first = "a" * only_first + "b" * only_second + "a" * both
    second = "b" * only_first + "a" * only_second + "a" * both
    found = mcnemar(aligned(labels, first), aligned(labels, second))
    n = only_first + only_second
    tail = sum(comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    assert (found.first_better, found.second_better) == (only_first, only_second)
    assert found.seeds == 1
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_counts_an_utterance_once_for_any_number_of_seeds():
    labels, first, second = "a" * 20, "a" * 15 + "b" * 5, "a" * 9 + "b" * 11
    one = mcnemar(aligned(labels, first), aligned(labels, second))
    many = mcnemar(aligned(labels, *[first] * 9), aligned(labels, *[second] * 9))
    assert (many.first_better, many.second_better, many.p) == (6, 0, one.p)
    assert (one.seeds, many.seeds) == (1, 9)


def test_mcnemar_compares_the_numbers_of_correct_seeds():
    #            1 of 2 against 2 of 2; 1 against 1; 2 against 0; 0 against 0
    first = aligned("aaaa", "abab", "baab")
    second = aligned("aaaa", "aabc", "abbb")
    found = mcnemar(first, second)
    assert (found.first_better, found.second_better) == (1, 1)


def test_mcnemar_is_fair_to_runs_of_unequal_numbers_of_seeds():
    # One seed with an accuracy of 90 % is "all correct" far more often than five such seeds.
    rng = np.random.default_rng(8)
    labels = "a" * 2000
    one, *five = ("".join(rng.choice(["a", "b"], 2000, p=[0.9, 0.1])) for _ in range(6))
    found = mcnemar(aligned(labels, one), aligned(labels, *five))
    assert found.seeds == 1
    assert found.p > 0.01
    assert found == mcnemar(aligned(labels, one), aligned(labels, five[0]))
