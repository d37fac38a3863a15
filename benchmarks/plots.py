"""Draw tables as pictures: bars to compare methods, lines to show growth."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Locator, LogLocator, NullLocator, StrMethodFormatter

from mser.benchmarks.results import Plot, Rows, Table, Value

matplotlib.rcParams["svg.hashsalt"] = "mser"  # so that one table always gives the same file
_MSER_COLOUR, _OTHER_COLOUR = "#b2452f", "#7d8ca3"
_SUBS = (1, 2, 5)  # the ticks in each power of ten
_WIDTH, _ROW_HEIGHT, _LINES_HEIGHT = 7.5, 0.32, 3.6  # inches


def draw(table: Table, path: Path) -> None:
    """Draw a table that has a plot as an SVG file."""
    assert table.plot
    figure = Figure(
        figsize=(_WIDTH, _LINES_HEIGHT if table.plot.x else 1 + _ROW_HEIGHT * len(table.rows))
    )
    axes = figure.add_subplot()
    (_lines if table.plot.x else _bars)(axes, table.rows, table.plot)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(True, color="#e4e4e4", linewidth=0.6, axis="both" if table.plot.x else "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None}, facecolor="white")


def _bars(axes: Axes, rows: Rows, plot: Plot) -> None:
    """Draw one bar per row, the first on top, and the quartiles as a thin line; skip texts."""
    values = {name: row[plot.column] for name, row in rows.items()}
    shown = {
        name: value if isinstance(value, list) else [value] * 3
        for name, value in values.items()
        if not isinstance(value, str)
    }
    middles = [middle for middle, _, _ in shown.values()]
    error_bars = [
        [middle - low for middle, low, _ in shown.values()],
        [high - middle for middle, _, high in shown.values()],
    ]
    colours = [_MSER_COLOUR if name.startswith("mser") else _OTHER_COLOUR for name in shown]
    style = {"ecolor": "#333333", "elinewidth": 1}
    bars = axes.barh(list(shown), middles, color=colours, xerr=error_bars, error_kw=style)
    axes.bar_label(bars, [f"{middle:.3g}" for middle in middles], padding=6, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(plot.column)
    axes.margins(x=0.12)
    if plot.log:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, LogLocator(subs=_SUBS))


def _lines(axes: Axes, rows: Rows, plot: Plot) -> None:
    assert plot.x
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows.values():
        name = str(row[plot.by]) if plot.by else ""
        lines.setdefault(name, []).append((_middle(row[plot.x]), _middle(row[plot.column])))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    if plot.by:
        axes.legend(frameon=False)
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        xs = sorted({x for points in lines.values() for x, _ in points})
        _plain_numbers(axes.xaxis, FixedLocator(xs))
        _plain_numbers(axes.yaxis, LogLocator(subs=_SUBS))
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.column)


def _plain_numbers(axis: Axis, ticks: Locator) -> None:
    axis.set_major_locator(ticks)
    axis.set_major_formatter(StrMethodFormatter("{x:.10g}"))
    axis.set_minor_locator(NullLocator())


def _middle(value: Value) -> float:
    assert not isinstance(value, str)
    return value[0] if isinstance(value, list) else value
