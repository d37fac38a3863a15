"""The tables of a report as CSV and LaTeX, and its figures as SVG and PDF.

The tables, and the names of all files, are read from the page itself. So the files hold what the
page shows, whatever a run has.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from matplotlib.figure import Figure

from ...cache.storage.local import LocalFolder
from ..figures.style import pdf, svg

_VOID = {"br", "meta"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # LaTeX's default fonts print < as ¡ and > as ¿, and it knows no character for these two.
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "→": r"$\rightarrow$",
}


@dataclass
class _Table:
    title: str
    rows: list[list[str]] = field(default_factory=list)
    caption: str = ""


def write_files(page: str, figures: Sequence[Figure], folder: Path) -> list[str]:
    """Write the tables and figures of a page into a folder, and return the names of the files.

    The names are those of the sections. A ``.tex`` file is a tabular that needs only booktabs.
    ``figures`` are those of the page, by the numbers in their attribute ``data-figure``.

    Raises:
        CacheError: the folder cannot be written.
    """
    parser = _Page()
    parser.feed(page)
    parser.close()
    files: dict[str, bytes] = {}
    for table in parser.tables:
        name = _unused(_slug(table.title), {Path(n).stem for n in files})
        files |= {f"{name}.csv": _csv(table).encode(), f"{name}.tex": _latex(table).encode()}
    for title, number in parser.figures:
        name = _unused(_slug(title), {Path(n).stem for n in files})
        figure = figures[number]
        files |= {f"{name}.svg": svg(figure).encode(), f"{name}.pdf": pdf(figure)}
    target = LocalFolder(folder)
    target.make()
    for name, content in files.items():
        target.write(name, content)
    return sorted(files)


class _Page(HTMLParser):
    """Collects the tables of the page that the template makes, and the places of its figures."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[_Table] = []
        self.figures: list[tuple[str, int]] = []
        self.headings = ["report", ""]
        self.open: list[str] = []

    @property
    def title(self) -> str:
        return " ".join(heading for heading in self.headings if heading)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h2", "h3"):
            self.headings = ["", ""] if tag == "h2" else [self.headings[0], ""]
        if tag == "svg":
            given = dict(attrs)
            title = f"{self.title} {given['aria-label']}"
            self.figures.append((title, int(given["data-figure"] or 0)))
        elif tag == "table":
            self.tables.append(_Table(self.title))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append("")
        elif tag in ("br", "small") and {"td", "th"} & set(self.open):
            self.tables[-1].rows[-1][-1] += " "
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # parts of a drawing

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if {"h2", "h3"} & set(self.open):
            self.headings["h3" in self.open] += data
        elif {"td", "th"} & set(self.open):
            self.tables[-1].rows[-1][-1] += data
        elif "caption" in self.open:
            self.tables[-1].caption += data


def _csv(table: _Table) -> str:
    text = io.StringIO(newline="")
    rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]
    # A cell that begins like a formula would be computed by a spreadsheet.
    safe = [["'" + c if c[:1] in ("=", "@") or _is_formula(c) else c for c in r] for r in rows]
    csv.writer(text).writerows(safe)
    return text.getvalue()


def _is_formula(cell: str) -> bool:
    return cell[:1] in ("+", "-") and not re.fullmatch(r"[-+\d.,%\s±…<=p]*", cell)


def _latex(table: _Table) -> str:
    width = max((len(row) for row in table.rows), default=1)
    rows = [[_escaped(" ".join(cell.split())) for cell in row] for row in table.rows]
    lines = [" & ".join([*row, *[""] * (width - len(row))]) + r" \\" for row in rows]
    caption = _escaped(" ".join(table.caption.split()))
    return "\n".join(
        [
            f"% {' '.join(table.title.split())}",
            r"\begin{tabular}{l" + "r" * (width - 1) + "}",
            r"\toprule",
            *lines[:1],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *([f"% {caption}"] if caption else []),
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _slug(title: str) -> str:
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "table"


def _unused(name: str, used: set[str]) -> str:
    number = 2
    while name in used:
        name = f"{re.sub('-[0-9]+$', '', name) if number > 2 else name}-{number}"
        number += 1
    return name
