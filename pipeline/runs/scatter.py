"""Panels of points as numbers: positions, colours and markers in a drawing of fixed size.

``tsne.svg`` draws them. The origin of the drawing is at the top left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PANEL = 340.0  # width and height
_GAP, _TOP, _LEGEND = 16.0, 58.0, 20.0
_INSIDE = 10.0  # between the points and the frame

# Colours that people with a colour vision deficiency can tell apart (Okabe & Ito, 2008).
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#f0e442"),
)
_MARKERS = (
    "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",  # circle
    "M0,-3.7L3.5,2.7L-3.5,2.7z",  # triangle
    "M-2.7,-2.7h5.4v5.4h-5.4z",  # square
    "M0,-3.9L3.9,0L0,3.9L-3.9,0z",  # diamond
)


@dataclass(frozen=True)
class Point:
    """One modality of one utterance, at a position of any scale."""

    id: str
    label: str
    modality: str
    x: float
    y: float


@dataclass(frozen=True)
class Mark:
    """A marker in the drawing: its position, the path of its shape, and its colour."""

    x: float
    y: float
    shape: str
    colour: str


@dataclass(frozen=True)
class Panel:
    """A square with a title and markers; ``left`` and ``top`` are those of the square."""

    title: str
    left: float
    top: float
    size: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Scatter:
    """The panels side by side, and below them the legend: markers with their names."""

    width: float
    height: float
    panels: tuple[Panel, ...]
    legend: tuple[tuple[Mark, str], ...]


def scatter(
    stages: Mapping[str, Sequence[Point]], classes: Sequence[str], modalities: Sequence[str]
) -> Scatter:
    """Draw a panel for each stage, with the colours of the classes and markers of the modalities.

    A panel shows its points at one scale for both axes. With more than eight classes or four
    modalities, colours or markers are used again.
    """
    colour_of = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(classes)}
    shape_of = {name: _MARKERS[n % len(_MARKERS)] for n, name in enumerate(modalities)}
    panels = []
    for number, (title, points) in enumerate(stages.items()):
        left = _GAP + number * (_PANEL + _GAP)
        marks = [
            Mark(x, y, shape_of[point.modality], colour_of[point.label])
            for point, (x, y) in zip(points, _placed(points, left, _TOP), strict=True)
        ]
        panels.append(Panel(title, left, _TOP, _PANEL, tuple(marks)))
    names = [(colour_of[name], _MARKERS[2], name) for name in classes]
    names += [("#5d636b", shape_of[name], name) for name in modalities]
    width, legend = _GAP + len(panels) * (_PANEL + _GAP), []
    x, y = _GAP, _TOP + _PANEL + _LEGEND
    for colour, shape, name in names:
        needed = 22.0 + 7.0 * len(name)
        if x + needed > width and x > _GAP:
            x, y = _GAP, y + _LEGEND
        legend.append((Mark(x + 5, y, shape, colour), name))
        x += needed
    return Scatter(width, y + _LEGEND, tuple(panels), tuple(legend))


def _placed(points: Sequence[Point], left: float, top: float) -> list[tuple[float, float]]:
    """Return the positions of points in a panel, which keeps their proportions."""
    xs, ys = [p.x for p in points], [p.y for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (_PANEL - 2 * _INSIDE) / span
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    centre = _PANEL / 2
    return [
        (
            round(left + centre + scale * (x - middle_x), 1),
            round(top + centre - scale * (y - middle_y), 1),
        )
        for x, y in zip(xs, ys, strict=True)
    ]
