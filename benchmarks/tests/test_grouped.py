"""The grouped trainings of the benchmark are the same trainings as one after another."""

import pytest

from mser.benchmarks import grouped


def test_a_group_gives_the_weights_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "MEMBERS", 2)
    monkeypatch.setattr(grouped, "BATCH", 4)
    batches = grouped.data(grouped.heads("linear", 0.0)[0])
    assert grouped.difference("linear", batches, steps=2) < 1e-5
