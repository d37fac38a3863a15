"""Progress: a bar on a terminal, a line a minute in a log."""

import io
import sys

import pytest

from mser.pipeline import progress
from mser.pipeline.progress import StatusBar, duration, times
from mser.tests.support.terminal import Terminal


def test_a_terminal_has_a_bar_with_the_text_and_keeps_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    with StatusBar() as bar:
        bar.show(0.25, "3 min left")
        bar.keep("fold ses01 is done")
    assert "3 min left" in err.getvalue()
    assert "fold ses01 is done\n" in err.getvalue()


@pytest.mark.parametrize(
    ("seconds", "lines"), [(0.0, ["  0% begins", " 50% 4 s left"]), (60.0, [])]
)
def test_a_log_has_a_line_a_minute_and_no_bar(
    monkeypatch: pytest.MonkeyPatch, seconds: float, lines: list[str]
) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(progress, "_LOG_SECONDS", seconds)
    with StatusBar() as bar:
        bar.show(0.0, "begins")
        bar.show(0.5, "4 s left")
        bar.keep("fold ses01 is done")
    assert [line for line in lines if line not in err.getvalue().splitlines()] == []
    assert bool(err.getvalue()) == bool(lines)
    assert "ses01" not in err.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (9000, "2.5 h")],
)
def test_a_duration_is_in_the_unit_that_a_person_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_factor_has_two_digits() -> None:
    assert [times(factor) for factor in (0.84, 4.25, 52.3, 1234.0)] == ["0.8", "4.2", "52", "1234"]
