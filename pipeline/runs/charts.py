"""Charts as numbers: positions of lines, dots and ticks in a drawing of fixed size.

The page draws them as SVG. A drawing is ``WIDTH`` x ``HEIGHT`` units, its origin at the top left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.registry import Metric

WIDTH, HEIGHT = 460.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 10.0, 34.0
_ROW = 17.0  # height of a line in a chart of intervals
_LABELS = 190.0  # width of its labels
_FLAT = 1e-6  # a smaller range is drawn as if it were 1

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in ascending x; ``kind`` is the CSS class of the line."""

    points: Points
    kind: str


@dataclass(frozen=True)
class Chart:
    """A drawing: ``lines`` are (points, kind), ticks are (position, text), ``dots`` are (x, y)."""

    lines: tuple[tuple[str, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    dots: tuple[tuple[float, float], ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Bar:
    """A value and its interval, drawn on one line; ``text`` gives both in words."""

    label: str
    text: str
    y: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """A drawing of values with intervals, one below the other."""

    bars: tuple[Bar, ...]
    x_ticks: tuple[tuple[float, str], ...]
    height: float
    left: float = _LABELS
    width: float = WIDTH


def line_chart(curves: Sequence[Curve], dots: Points = (), percent: bool = False) -> Chart:
    """Draw curves over epochs, and ``dots`` on them; ``percent`` writes y ticks in %."""
    xs = [x for curve in curves for x, _ in curve.points] or [1.0]
    ys = [y for curve in curves for _, y in curve.points if math.isfinite(y)] or [0.0]
    x_ticks, y_ticks = ticks(1, max(2.0, *xs), whole=True), ticks(min(0.0, *ys), max(ys))
    x_low, x_high = 1.0, max(2.0, *xs)
    y_low, y_high = y_ticks[0], max(y_ticks[-1], *ys)

    def position(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(HEIGHT - _BOTTOM - up, 1)

    lines = tuple(
        (
            " ".join(f"{x},{y}" for x, y in (position(*p) for p in curve.points if _all_finite(p))),
            curve.kind,
        )
        for curve in curves
    )
    return Chart(
        lines,
        tuple((position(x, y_low)[0], f"{x:g}") for x in x_ticks if x_low <= x <= x_high),
        tuple((position(x_low, y)[1], f"{100 * y:g}" if percent else f"{y:g}") for y in y_ticks),
        tuple(position(*dot) for dot in dots),
    )


def interval_chart(
    rows: Sequence[tuple[str, float, Sequence[float] | None]], metric: Metric
) -> Intervals:
    """Draw rows (label, value, interval [low, high] or ``None``) of a metric.

    The scale spans the intervals, not the whole range, so that small differences are visible.
    """
    ends = [end for _, value, bounds in rows for end in (value, *(bounds or ()))]
    marks = ticks(min(ends, default=0.0), max(ends, default=1.0))
    span, first, width = WIDTH - _LABELS - _RIGHT, marks[0], marks[-1] - marks[0]
    bars = []
    for number, (label, value, bounds) in enumerate(rows):
        low, high = bounds or (value, value)
        text = metric.text(value) + (" %" if metric.percent else "")
        text += f" [{metric.interval(bounds)}]" if bounds else ""
        across = (round(_LABELS + span * (x - first) / width, 1) for x in (value, low, high))
        bars.append(Bar(label, text, _TOP + _ROW * (number + 0.5), *across))
    height = _TOP + _ROW * len(bars) + 26
    labels = tuple(
        (_LABELS + span * (x - first) / width, f"{100 * x if metric.percent else x:g}")
        for x in marks
    )
    return Intervals(tuple(bars), labels, height)


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean of the curves at each x, over the curves that have a point there."""
    by_x: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve:
            by_x.setdefault(x, []).append(y)
    return [(x, sum(ys) / len(ys)) for x, ys in sorted(by_x.items())]


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return about five round numbers that span the range; the first is at most ``low``.

    ``whole`` gives only whole numbers, from 0 on.
    """
    if high - low < _FLAT:
        high = low + 1
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * by for by in (1, 2, 5, 10) if span / (power * by) <= 5)
    step = max(1.0, step) if whole else step
    first = math.floor(low / step)
    count = math.ceil(high / step - 1e-9) - first
    return [round((first + n) * step, 10) for n in range(count + 1)]


def _all_finite(point: tuple[float, float]) -> bool:
    """Whether a point can be drawn."""
    return all(map(math.isfinite, point))
