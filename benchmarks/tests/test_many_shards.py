"""``many_shards.py`` prints a line for every value that it measures."""

import sys
from pathlib import Path

import pytest

from mser.benchmarks import many_shards
from mser.cache import index


def test_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index, "LOOKUP_FROM", 100)
    options = ["many_shards.py", "--utterances", "300", "--shards", "3", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", options)
    many_shards.main()
    text = capsys.readouterr().out
    for which in ("with", "without"):
        for name in ("open, ms", "a random row, ms", "private MB"):
            assert f"{which} the lookup file: {name} " in text
    for name in ("publication without news", "ls", "verify --sample 0.001", "gc"):
        assert f"\n{name}: " in text
    assert list(tmp_path.iterdir()) == []
