"""The expected calibration error against a loop from its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mser.pipeline.evaluation.calibration import calibration

PREDICTIONS = st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=60)


@given(PREDICTIONS, st.integers(1, 20))
def test_the_error_is_that_of_the_definition(rows: list[tuple[float, bool]], bins: int) -> None:
    found = calibration([p for p, _ in rows], [right for _, right in rows], bins)
    total = 0.0
    for index in range(bins):
        edges = np.linspace(0, 1, bins + 1)
        inside = [(p, r) for p, r in rows if edges[index] < p <= edges[index + 1]]
        if inside:
            mean = math.fsum(p for p, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(rows) * abs(mean - accuracy)
    assert found.ece == pytest.approx(total, abs=1e-9)
    assert sum(each.count for each in found.bins) == len(rows)


def test_a_head_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    assert calibration([0.75] * 4, [True, True, True, False]).ece == pytest.approx(0)
    assert calibration([1.0] * 4, [False] * 4).ece == pytest.approx(1)
