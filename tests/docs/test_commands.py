"""The commands in the docs exist, with the options that the docs give them."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from mser.cli import app
from mser.tests.docs.test_head_pages import PAGES, ROOT, text_of

COMMANDS = [
    pytest.param(line.partition("#")[0].strip(), id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", text_of(page).replace("\\\n", " "), re.DOTALL)
    for number, line in enumerate(block.splitlines())
    if line.startswith("mser ") and "…" not in line and "..." not in line
]


def test_there_are_commands_in_the_docs() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_docs_is_accepted(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, (_, *words) = typer.main.get_command(app), shlex.split(line.partition(" &&")[0])
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not isinstance(command, TyperGroup) or words in (["--help"], ["--version"])
    if not {"-h", "--help", "--version"} & {*words}:
        command.make_context("mser", words)
