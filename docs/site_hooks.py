"""What the documentation site adds to the pages: references, notebooks and equations.

Both references are made from the code when the site is built, so they cannot differ from it.
Equations become MathML, which browsers show without a script or a font.
"""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import typer
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from typer.core import TyperGroup

import mser
from mser.cli import app

_WIDTH = 88  # characters of a line of help
_COMMANDS, _NAMES = "<!-- commands -->", "<!-- names -->"
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>[~.]*(.*?)</code>")
_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook; the notebook itself stays beside it."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = Path(notebook.src_uri).name
        cells = json.loads(Path(str(notebook.abs_src_path)).read_text(encoding="utf-8"))["cells"]
        parts = [_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        parts.insert(1, f"This page is [a notebook]({name}).")
        page = notebook.src_uri.replace(".ipynb", ".md")
        files.append(File.generated(config, page, content="\n\n".join(parts)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the references."""
    if _COMMANDS in markdown:
        markdown = markdown.replace(
            _COMMANDS, "\n".join(_sections(typer.main.get_command(app), "mser"))
        )
    if _NAMES in markdown:
        markdown = markdown.replace(_NAMES, "\n".join(map(_entry, mser.__all__)))
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Replace equations in LaTeX by MathML, and Sphinx's roles in docstrings by plain names."""
    return _EQUATION.sub(_mathml, _ROLE.sub(r"<code>\1</code>", html))


def _cell(kind: str, source: str) -> str:
    return f"```python\n{source}\n```" if kind == "code" else source


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["tag"] == "div" else "inline"
    return convert(unescape(match["latex"]), display=display)


def _sections(command: Any, name: str) -> list[str]:
    """Return a heading and the ``--help`` of a command, and of the commands below it."""
    context = typer.Context(
        command,
        info_name=name,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=["-h", "--help"],
    )
    lines = [f"## `{name}`", "", "```text", command.get_help(context), "```", ""]
    below = command.commands if isinstance(command, TyperGroup) else {}
    for word, each in below.items():
        lines += _sections(each, f"{name} {word}")
    return lines


def _entry(name: str) -> str:
    return "" if name.startswith("__") else f"::: mser.{name}\n"
