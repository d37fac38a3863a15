"""How every figure looks, and its forms: an SVG file, a PDF file, and a part of an HTML page."""

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, LINE, PAGE = "#1c1e21", "#5d636b", "#d5d9de", "#ffffff"
ONE, TWO = "#1f6fb2", "#c05a12"

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#f0e442"),
)
"""Colours that people with a colour vision deficiency can tell apart (Okabe & Ito, 2008)."""

# A colour → the variable of the page that takes its place, because the page can be dark.
_OF_PAGE = {INK: "--ink", SOFT: "--soft", LINE: "--line", ONE: "--one", TWO: "--two"}
_STYLE: Any = MappingProxyType(  # matplotlib has a type for its own names alone
    {
        "svg.fonttype": "none",  # texts stay texts
        "svg.hashsalt": "mser",  # the same figure gives the same file
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a name may have a dollar sign
        "font.family": "sans-serif",
        "font.size": 8.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": SOFT,
        "ytick.labelcolor": SOFT,
        "legend.frameon": False,
    }
)
# Without a home that can be written, or a font for a letter, it would write to standard error.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all figures."""
    with mpl.rc_context(dict(_STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def panels(width: float, height: float, count: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of ``width`` x ``height`` inches with ``count`` panels side by side.

    Call it, and draw, within :func:`styled`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, count, number + 1) for number in range(count)]
    return figure, axes


def svg(figure: Figure) -> str:
    """Return a figure as the text of an SVG file, on a white page."""
    return _saved(figure, "svg", facecolor=PAGE).decode()


def pdf(figure: Figure) -> bytes:
    """Return a figure as a PDF file, without a date."""
    return _saved(figure, "pdf", facecolor=PAGE)


def inline(figure: Figure, label: str, number: int) -> str:
    """Return a figure as an ``<svg>`` of an HTML page, in the colours of the page.

    ``label`` is the description for those who cannot see the figure, and ``number`` the value of
    its attribute ``data-figure``.
    """
    text = _saved(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<g|<svg) id="[^"]*"', r"\1", text)  # equal in all figures of a page
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    for colour, variable in _OF_PAGE.items():
        text = text.replace(colour, f"var({variable})")
    attributes = f'role="img" aria-label="{escape(printable(label))}" data-figure="{number}"'
    return text.replace("<svg", f"<svg {attributes}", 1)


def printable(text: str) -> str:
    """Return a text without the characters that XML does not allow."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def shortened(text: str, longest: int = 30) -> str:
    """Return a printable text that fits beside a panel."""
    kept = printable(text)
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    undated = {"Date": None} if form == "svg" else {"CreationDate": None}
    with styled():
        engine = figure.get_layout_engine()
        if engine is not None:  # a second layout would move everything a little
            engine.execute(figure)
            figure.set_layout_engine(None)  # with any other value, savefig draws everything twice
        figure.savefig(stream, format=form, metadata=undated, **options)
    return stream.getvalue()
