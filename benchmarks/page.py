"""Write the page of all benchmarks from their JSON: no number on it is typed by hand.

The text is in ``page.md.jinja``, the latest results from a quiet machine are in ``measured/``.

Run it with ``python benchmarks/page.py``: it writes ``docs/benchmarks.md`` and its pictures.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from mser.benchmarks.results import Results, cell

HERE = Path(__file__).parent
BENCHMARKS = ("read", "extract", "vision", "exactness", "train", "scale", "texts", "start", "gpu")
"""The files of results; ``texts`` is the section of that name of ``scale.py``, if it is apart."""


class Page(NamedTuple):
    """The page, and the tables that its pictures show."""

    text: str  # Markdown
    pictures: Mapping[str, tuple[str, str]]  # path → name of the benchmark, title of the table


def render(results: Mapping[str, Results], pictures: str) -> Page:
    """Fill in the template.

    Args:
        results: the results of each of :data:`BENCHMARKS`; the page names those that are missing.
        pictures: the folder of the pictures, relative to the page.
    """
    drawn: dict[str, tuple[str, str]] = {}

    def section(name: str) -> str:
        if name not in results:
            return f"`benchmarks/{name}.py` was not run."
        paths = {}
        for number, table in enumerate(results[name].tables, 1):
            if table.plot:
                paths[table.title] = f"{pictures}/{name}-{number}.svg"
                drawn[paths[table.title]] = (name, table.title)
        return results[name].markdown(paths)

    def value(name: str, title: str, row: str, column: str) -> str:
        """Return a cell of a table, or a dash if the table was not measured."""
        tables = {t.title: t for t in results[name].tables} if name in results else {}
        return cell(tables[title].rows[row][column]) if title in tables else "–"

    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((HERE / "page.md.jinja").read_text("utf-8"))
    small = any(each.small for each in results.values())
    gpu = any(each.machine["GPU"] != "none" for each in results.values())
    return Page(
        template.render(section=section, value=value, results=results, small=small, gpu=gpu), drawn
    )


def load(folder: Path) -> dict[str, Results]:
    """Read all results in a folder."""
    files = {name: folder / f"{name}.json" for name in BENCHMARKS}
    return {name: Results.load(file) for name, file in files.items() if file.exists()}


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--results",
        type=Path,
        default=HERE / "measured",
        help="folder of the JSON; default: benchmarks/measured",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=HERE.parent / "docs" / "benchmarks.md",
        help="file to write; default: docs/benchmarks.md",
    )
    options = parser.parse_args()
    # render() needs only the JSON; drawing needs matplotlib.
    from mser.benchmarks.plots import draw  # noqa: PLC0415

    results = load(options.results)
    page = render(results, options.page.stem)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(page.text, "utf-8")
    folder = options.page.parent / options.page.stem
    for old in folder.glob("*.svg"):
        old.unlink()
    for path, (name, title) in page.pictures.items():
        table = next(table for table in results[name].tables if table.title == title)
        draw(table, folder.parent / path)
    print(options.page)


if __name__ == "__main__":
    main()
