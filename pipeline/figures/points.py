"""Figures of single utterances as points: embeddings, and predicted against true attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import COLOURS, INK, ONE, SOFT, panels, printable, shortened, styled

_MARKERS = ("o", "^", "s", "D")
_MOST_POINTS = 1500  # of a scatter plot in a page


@dataclass(frozen=True)
class Point:
    """One modality of one utterance, at a position of any scale."""

    id: str
    label: str
    modality: str
    x: float
    y: float


def embedding_figure(
    title: str,
    stages: Mapping[str, Sequence[Point]],
    classes: Sequence[str],
    modalities: Sequence[str],
) -> Figure:
    """Draw a panel for each stage, with the colours of the classes and markers of the modalities.

    A panel has one scale for both axes, and no ticks, because positions have no meaning by
    themselves. With more than eight classes or four modalities, colours or markers are used again.
    """
    colour_of = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(classes)}
    marker_of = {name: _MARKERS[n % len(_MARKERS)] for n, name in enumerate(modalities)}
    with styled():
        figure, axes = panels(3.7 * len(stages), 4.4, len(stages))
        for panel, (stage, points) in zip(axes, stages.items(), strict=True):
            for label in classes:
                for modality in modalities:
                    shown = [p for p in points if (p.label, p.modality) == (label, modality)]
                    panel.plot(
                        [p.x for p in shown],
                        [p.y for p in shown],
                        marker_of[modality],
                        color=colour_of[label],
                        alpha=0.75,
                        markersize=3.5,
                        markeredgewidth=0,
                    )
            panel.set(xticks=[], yticks=[], title=stage)
            panel.set_aspect("equal", adjustable="datalim")
            panel.spines[["top", "right"]].set_visible(True)
        keys = [_key(name, "s", colour) for name, colour in colour_of.items()]
        keys += [_key(name, marker, SOFT) for name, marker in marker_of.items()]
        figure.suptitle(printable(title), x=0.01, ha="left", fontsize=10)
        figure.legend(handles=keys, loc="outside lower center", ncols=min(6, len(keys)))
        return figure


def drawn_points(true: Sequence[float], predicted: Sequence[float]) -> list[tuple[float, float]]:
    """Return (true, predicted) of each utterance, or of 1500 evenly chosen ones of more."""
    step = -(-len(true) // _MOST_POINTS) or 1
    return list(zip(true[::step], predicted[::step], strict=True))


def attribute_figure(
    name: str, pairs: Sequence[tuple[float, float]], by_fold: Mapping[str, float]
) -> Figure:
    """Draw predictions against the truth, and beside them the CCC of each fold.

    Args:
        name: the attribute.
        pairs: (true, predicted) of test utterances.
        by_fold: fold → its CCC.
    """
    ends = [end for pair in pairs for end in pair]
    low, high = min(ends), max(ends)
    gap = 0.04 * ((high - low) or 1.0)
    with styled():
        figure, (left, right) = panels(6.4, 2.9, 2)
        left.plot([low, high], [low, high], "--", color=INK, linewidth=1)
        true, predicted = zip(*pairs, strict=True)
        left.plot(true, predicted, "o", color=ONE, alpha=0.4, markersize=3, markeredgewidth=0)
        left.set(xlim=(low - gap, high + gap), ylim=(low - gap, high + gap), aspect="equal")
        left.set(xlabel=f"true {shortened(name)}", ylabel=f"predicted {shortened(name)}")
        places = range(len(by_fold))
        right.barh(places, list(by_fold.values()), height=0.6, color=ONE, alpha=0.7)
        right.set_yticks(places, [shortened(fold, 20) for fold in by_fold], color=INK)
        right.set_ylim(len(by_fold) - 0.4, -0.6)
        right.axvline(0, color=INK, linewidth=1)
        right.set_xlim(min(0.0, *by_fold.values()), max(1.0, *by_fold.values()))
        right.grid(False, axis="y")
        right.set_xlabel("CCC of the test fold")
        return figure


def _key(name: str, marker: str, colour: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle="", label=shortened(name))
