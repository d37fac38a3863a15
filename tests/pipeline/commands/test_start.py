"""How a command starts: what it imports, and which names it refuses before that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mser.heads import HEADS
from mser.pipeline.commands.names import HEAD_NAMES
from mser.tests.conftest import Call

# Imports nothing slow itself, and prints the modules that a command has imported.
PROGRAM = """
import atexit, json, sys
SLOW = ("torch", "distributed", "dask", "sklearn", "scipy", "pandas", "transformers")
atexit.register(lambda: print("\\n" + json.dumps([m for m in SLOW if m in sys.modules])))
from mser.cli import main
sys.argv = ["mser", *sys.argv[1:]]
main()
"""


SYNTHETIC = "'syntetic': did you mean 'synthetic'?"


def run(folder: Path, *arguments: object) -> tuple[int, list[str], str]:
    """Return the exit code, the slow modules that were imported, and the standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_help_and_the_list_of_a_cache_import_nothing_slow(
    filled_cache: Path, tmp_path: Path
) -> None:
    assert run(tmp_path, "--help") == (0, [], "")
    assert run(tmp_path, "cache", "ls", "--cache", filled_cache) == (0, [], "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["extract", "--dataset", "syntetic", "--root", "."],
            "unknown dataset 'syntetic': did you mean 'synthetic'?",
        ),
        (["train-head", "--head", "hbff"], "unknown head 'hbff': did you mean 'hbf'?"),
        (["train-head", "--preset", "hbf-melt"], "'hbf-melt': did you mean 'hbf-meld'?"),
        (["tune", "--preset", "hbf-melt"], "'hbf-melt': did you mean 'hbf-meld'?"),
        (["train-head", "--head", "linear", "--dataset", "syntetic"], SYNTHETIC),
        (["probe", "--dataset", "syntetic"], SYNTHETIC),
        (["ablate", "--preset", "fusion", "--dataset", "syntetic"], SYNTHETIC),
    ],
    ids=["dataset", "head", "preset", "preset of tune", "cached", "cached, probe", "and ablate"],
)
def test_an_unknown_name_is_refused_before_anything_slow_is_imported(
    filled_cache: Path, tmp_path: Path, command: list[str], message: str
) -> None:
    code, imported, error = run(tmp_path, *command, "--cache", filled_cache)
    assert (code, imported) == (2, [])
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_training_in_this_process_imports_neither_dask_nor_transformers(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mser.pipeline.train.runner as r; r.train_head\n"
            "print([m for m in ('distributed', 'sklearn', 'scipy', 'transformers') "
            "if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout == "[]\n"


def test_the_heads_of_the_help_are_those_of_the_registry() -> None:
    assert set(HEAD_NAMES) == set(HEADS)


@pytest.mark.parametrize("name", ["nowhere.py:Head", "no_package.module:Head"])
def test_the_name_of_code_is_left_to_the_loading_of_plugins(
    call: Call, filled_cache: Path, name: str
) -> None:
    code, _, error = call(
        "train-head", "--head", name, "--dataset", "synthetic", "--cache", filled_cache
    )
    assert code == 2
    assert "unknown head" not in error
