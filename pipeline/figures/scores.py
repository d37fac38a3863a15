"""Figures of scores: intervals of several runs, scores by layer, calibration."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..evaluation.calibration import Bin
from ..evaluation.registry import Metric
from .style import COLOURS, INK, ONE, panels, printable, shortened, styled

Score = Mapping[str, float | None]


def interval_figure(
    rows: Sequence[tuple[str, float, Sequence[float] | None]], metric: Metric
) -> Figure:
    """Draw rows (label, value, interval [low, high] or ``None``) of a metric, the first on top.

    The scale spans the intervals, not the whole range, so that small differences are visible.
    """
    factor = 100 if metric.percent else 1
    with styled():
        figure, (axes,) = panels(4.8, 0.55 + 0.2 * len(rows))
        places = range(len(rows))
        for place, (_, value, bounds) in zip(places, rows, strict=True):
            low, high = bounds or (value, value)
            axes.plot([factor * low, factor * high], [place] * 2, color=ONE, linewidth=1.6)
            axes.plot(factor * value, place, "o", color=ONE, markersize=5)
        axes.set_yticks(places, [shortened(label) for label, _, _ in rows], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.08)
        return figure


def layer_figure(
    title: str,
    metric: Metric,
    curves: Mapping[str, Sequence[tuple[int, Score]]],
    whole: Mapping[str, float | None],
) -> Figure:
    """Draw scores against layers: a curve with intervals for each modality.

    Args:
        title: the text above the figure.
        metric: what the scores are.
        curves: modality → (layer, scores with ``pooled``, ``ci95_low`` and ``ci95_high``).
        whole: modality, or several joined by ``+`` → the score of all layers side by side, which is
            a dashed line.
    """
    names = list(dict.fromkeys([*curves, *whole]))
    colour_of = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
    factor = 100 if metric.percent else 1
    layers = sorted({layer for points in curves.values() for layer, _ in points})
    with styled():
        figure, (axes,) = panels(7.5, 4.2)
        for name, points in curves.items():
            xs = [layer for layer, _ in points]
            ys, lows, highs = zip(*(_bounds(score, factor) for _, score in points), strict=True)
            axes.vlines(xs, lows, highs, color=colour_of[name], alpha=0.45, linewidth=1)
            axes.plot(xs, ys, "o-", color=colour_of[name], markersize=4.5, label=shortened(name))
        for name, value in whole.items():
            if value is not None:
                label = f"{shortened(name)}, all layers"
                style = {"color": colour_of[name], "linestyle": "--", "linewidth": 1.3}
                axes.axhline(factor * value, label=label, **style)
        axes.set_xticks(layers)
        axes.set_xlabel("layer of the encoder")
        axes.set_ylabel(f"{metric.title}{', %' if metric.percent else ''}")
        axes.set_title(printable(title))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return figure


def reliability_figure(bins: Sequence[Bin]) -> Figure:
    """Draw how often a head is right, by the probability of the predicted class, both in %."""
    with styled():
        figure, (axes,) = panels(3.1, 2.9)
        lefts = [100 * each.low for each in bins]
        widths = [100 * (each.high - each.low) - 0.4 for each in bins]
        heights = [100 * each.accuracy for each in bins]
        axes.bar(lefts, heights, widths, align="edge", color=ONE, alpha=0.7)
        axes.plot([0, 100], [0, 100], "--", color=INK, linewidth=1.2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", ylabel="right, %")
        axes.set_xlabel("probability of the predicted class, %")
        return figure


def _bounds(score: Score, factor: float) -> tuple[float, float, float]:
    """Return the score and the ends of its interval, which are the score if there is none."""
    pooled = score["pooled"] or 0.0
    low, high = score["ci95_low"], score["ci95_high"]
    ends = (pooled, pooled if low is None else low, pooled if high is None else high)
    return factor * ends[0], factor * ends[1], factor * ends[2]
