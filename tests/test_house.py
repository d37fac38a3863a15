"""The layout of the repository: which file may stand where, and what it may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cache", "heads", "pipeline")
FOLDERS = (*ROOMS, "tests", "benchmarks")
MAX_LINES = 400
# The only modules that stand in pipeline/ itself. Every other module belongs to a room.
LOOSE = {
    *("__init__", "errors", "progress", "provenance", "output", "demo", "doctor"),
    *("modalities", "targets", "layers", "validation", "plugins", "option_texts", "interruption"),
    *("store_formats", "feature_cache", "catalogue", "preset_files", "garbage"),
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}

FILES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
WITHOUT_BENCHMARKS = [
    path
    for path in FILES
    if not path.is_relative_to(ROOT / "benchmarks")
    and not path.is_relative_to(ROOT / "tests" / "benchmarks")
]


def package_of(path: Path) -> tuple[str, ...]:
    return "mser", *path.relative_to(ROOT).parent.parts


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """The full name of every module or object that a file of ``package`` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *filter(None, [node.module]))
            yield from (".".join((*module, alias.name)) for alias in node.names)


def imports_benchmarks(source: str, package: tuple[str, ...]) -> bool:
    return any(name.split(".")[:2] == ["mser", "benchmarks"] for name in imports(source, package))


def test_every_folder_has_modules() -> None:
    """Without this, a wrong path would let the tests below pass."""
    tops = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert tops >= {*FOLDERS, "cli.py", "__init__.py"}


def test_only_benchmarks_import_benchmarks() -> None:
    importing = [
        path.relative_to(ROOT).as_posix()
        for path in WITHOUT_BENCHMARKS
        if imports_benchmarks(path.read_text(encoding="utf-8"), package_of(path))
    ]
    assert importing == []


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("mser.cache", "import mser.benchmarks.read", True),
        ("mser.cache", "from mser.benchmarks.read import epoch", True),
        ("mser.cache", "from mser import benchmarks", True),
        ("mser.cache", "def f():\n    from ..benchmarks import read", True),
        ("mser", "from . import benchmarks", True),
        ("mser.cache.storage", "from ..benchmarks import read", False),
        ("mser.cache", "import mser.cache, benchmarks_of_others", False),
    ],
)
def test_every_form_of_import_is_recognised(package: str, source: str, expected: bool) -> None:
    assert imports_benchmarks(source, tuple(package.split("."))) is expected


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_pipeline_holds_only_the_listed_modules() -> None:
    assert {path.stem for path in (ROOT / "pipeline").glob("*.py")} <= LOOSE


def test_no_module_has_a_vague_name() -> None:
    names = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & VAGUE
