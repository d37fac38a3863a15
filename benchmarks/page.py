"""The page of all benchmarks, written from their JSON: no number on it is typed by hand.

``page.md.jinja`` has the text; ``measured/`` what was measured last on a quiet machine.

Run it with ``python benchmarks/page.py``: it writes ``docs/benchmarks.md`` and its pictures.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from mser.benchmarks.results import Results, Value, cell

HERE = Path(__file__).parent
BENCHMARKS = ("read", "extract", "exactness", "train", "scale", "start")


class Page(NamedTuple):
    """The page in Markdown, and which table each of its pictures shows: path → name, title."""

    text: str
    pictures: Mapping[str, tuple[str, str]]


def page(found: Mapping[str, Results], pictures: str) -> Page:
    """Fill in the page.

    Args:
        found: what each of :data:`BENCHMARKS` has found; one that is missing is said to be.
        pictures: the folder of the pictures, as seen from the page.
    """
    drawn: dict[str, tuple[str, str]] = {}

    def section(name: str) -> str:
        if name not in found:
            return f"`benchmarks/{name}.py` was not run."
        paths = {}
        for number, table in enumerate(found[name].tables, 1):
            if table.plot:
                paths[table.title] = f"{pictures}/{name}-{number}.svg"
                drawn[paths[table.title]] = (name, table.title)
        return found[name].markdown(paths)

    def value(name: str, title: str, row: str, column: str) -> str:
        """The cell of a table, or a dash where it was not measured."""
        tables = {one.title: one for one in found[name].tables} if name in found else {}
        if title not in tables:
            return "–"
        known: Value = tables[title].rows[row][column]
        return cell(known)

    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((HERE / "page.md.jinja").read_text("utf-8"))
    small = any(one.small for one in found.values())
    gpu = any(one.machine["GPU"] != "none" for one in found.values())
    return Page(template.render(section=section, value=value, small=small, gpu=gpu), drawn)


def load(folder: Path) -> dict[str, Results]:
    """Read the results that are in a folder."""
    files = {name: folder / f"{name}.json" for name in BENCHMARKS}
    return {name: Results.load(file) for name, file in files.items() if file.exists()}


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--results", type=Path, default=HERE / "measured", help="folder of the JSON"
    )
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    # The page itself needs nothing but the JSON; the pictures want a library more.
    from mser.benchmarks.plots import draw  # noqa: PLC0415

    found = load(options.results)
    made = page(found, options.page.stem)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(made.text, "utf-8")
    folder = options.page.parent / options.page.stem
    for old in folder.glob("*.svg"):
        old.unlink()
    for path, (name, title) in made.pictures.items():
        draw(next(one for one in found[name].tables if one.title == title), folder.parent / path)
    print(options.page)


if __name__ == "__main__":
    main()
