"""Figures of a training: curves over epochs, and the learned weights of the layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .style import INK, ONE, PAGE, TWO, panels, styled

Points = Sequence[tuple[float, float]]
_COLOUR_OF = {"train": TWO, "validation": ONE}
_SIZE = (4.8, 2.5)  # inches


@dataclass(frozen=True)
class Curve:
    """Points (epoch, value) of a part, ``train`` or ``validation``; thick for a mean."""

    points: Points
    part: str
    mean: bool = False


def with_mean(curves: Sequence[Points], part: str) -> list[Curve]:
    """Return a curve for each training, and one for their mean at each epoch.

    The mean is over the trainings that have a point at the epoch.
    """
    by_x: dict[float, list[float]] = {}
    for points in curves:
        for x, y in points:
            by_x.setdefault(x, []).append(y)
    mean = [(x, sum(ys) / len(ys)) for x, ys in sorted(by_x.items())]
    return [*(Curve(points, part) for points in curves), Curve(mean, part, mean=True)]


def epoch_figure(
    curves: Sequence[Curve], name: str, dots: Points = (), percent: bool = False
) -> Figure:
    """Draw curves over epochs; values that are not finite are gaps.

    Args:
        curves: the curves.
        name: the name of the values.
        dots: points (epoch, value) that are marked by circles.
        percent: write the values in %.
    """
    with styled():
        figure, (axes,) = panels(*_SIZE)
        for curve in curves:
            xs = [x for x, _ in curve.points]
            ys = [y if math.isfinite(y) else math.nan for _, y in curve.points]
            width, alpha = (2.2, 1.0) if curve.mean else (0.8, 0.35)
            axes.plot(xs, ys, color=_COLOUR_OF[curve.part], linewidth=width, alpha=alpha)
        if dots:
            x, y = zip(*dots, strict=True)
            axes.plot(x, y, "o", color=ONE, markerfacecolor=PAGE, markersize=4.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), high)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{name}, %" if percent else name)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
        return figure


def weights_figure(modality: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a bar for the mean weight of each layer, in %, and a line from least to largest.

    ``rows`` have ``layer``, ``mean``, ``low`` and ``high``; weights are in [0, 1].
    """
    means, lows, highs = ([100 * row[name] for row in rows] for name in ("mean", "low", "high"))
    with styled():
        figure, (axes,) = panels(1.2 + 0.26 * len(rows), 2.1)
        places = range(len(rows))
        axes.bar(places, means, width=0.7, color=ONE, alpha=0.7)
        axes.vlines(places, lows, highs, color=INK, linewidth=1.2)
        axes.set_xticks(places, [str(row["layer"]) for row in rows])
        axes.grid(False, axis="x")
        axes.set_xlabel(f"layer of {modality}")
        axes.set_ylabel("weight, %")
        return figure
