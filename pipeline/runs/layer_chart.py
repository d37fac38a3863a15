"""Scores against layers as an SVG picture: a curve with intervals for each modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from .charts import ticks

Score = Mapping[str, float | None]

# Colours that people with a colour vision deficiency can tell apart (Okabe & Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_WIDTH, _HEIGHT = 720.0, 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 190.0, 48.0, 48.0


@dataclass(frozen=True)
class _Line:
    """A curve with its dots (x, y, low, high), or a horizontal line, and its name."""

    name: str
    colour: str
    points: str
    dots: tuple[tuple[float, float, float, float], ...]
    name_y: float


def layer_chart(
    title: str,
    metric: str,
    curves: Mapping[str, Sequence[tuple[int, Score]]],
    whole: Mapping[str, float | None],
) -> str:
    """Return the picture as the text of an SVG file.

    Args:
        title: the text above the picture.
        metric: the title of the metric, for the vertical axis, in %.
        curves: modality → (layer, scores with ``pooled``, ``ci95_low`` and ``ci95_high``).
        whole: modality, or several joined by ``+`` → the score of all layers side by side, which is
            a dashed line.
    """
    layers = [layer for points in curves.values() for layer, _ in points]
    scores = [value for points in curves.values() for _, s in points for value in _bounds(s)]
    scores += [value for value in whole.values() if value is not None]
    y_ticks = ticks(min(scores), max(scores))
    low, high = y_ticks[0], max(y_ticks[-1], *scores)
    span = max(1, *layers)

    def across(layer: float) -> float:
        return round(_LEFT + layer / span * (_WIDTH - _LEFT - _RIGHT), 1)

    def down(score: float) -> float:
        return round(_TOP + (high - score) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    names = list(dict.fromkeys([*curves, *whole]))
    colour_of = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(names)}
    lines, dashed = [], []
    for name, points in curves.items():
        dots = tuple(
            (across(layer), down(value), down(low), down(high))
            for layer, (value, low, high) in ((layer, _bounds(score)) for layer, score in points)
        )
        path = " ".join(f"{x},{y}" for x, y, *_ in dots)
        lines.append(_Line(name, colour_of[name], path, dots, dots[-1][1]))
    for name, score in whole.items():
        if score is not None:
            path = f"{across(0)},{down(score)} {across(span)},{down(score)}"
            label = f"{name}, all layers"
            dashed.append(_Line(label, colour_of[name], path, (), down(score)))
    template = files(__package__).joinpath("probe.svg").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=title,
        metric=metric,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        bottom=_HEIGHT - _BOTTOM,
        lines=lines,
        dashed=dashed,
        names=_apart([*lines, *dashed]),
        x_ticks=[(across(n), str(n)) for n in sorted(set(layers))],
        y_ticks=[(down(n), f"{100 * n:g}") for n in y_ticks],
    )


def _bounds(score: Score) -> tuple[float, float, float]:
    """Return the score and the ends of its interval, which are the score if there is none."""
    pooled = score["pooled"] or 0.0
    low, high = score["ci95_low"], score["ci95_high"]
    return pooled, pooled if low is None else low, pooled if high is None else high


def _apart(lines: Sequence[_Line]) -> list[tuple[float, str, str]]:
    """Return (y, colour, name) for each line, moved so that no two names overlap."""
    placed: list[tuple[float, str, str]] = []
    for line in sorted(lines, key=lambda line: line.name_y):
        y = max(line.name_y, placed[-1][0] + 15 if placed else line.name_y)
        placed.append((y, line.colour, line.name))
    return placed
