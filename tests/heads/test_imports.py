"""The heads import torch, pydantic, the standard library and each other, and nothing else."""

import ast
import sys
from pathlib import Path

import pytest

ALLOWED = {"torch", "pydantic", *sys.stdlib_module_names}
HEADS = Path(__file__).parents[2] / "heads"
FILES = sorted(HEADS.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HEADS)))
def test_a_head_imports_no_other_room_and_no_other_library(file: Path) -> None:
    depth = len(file.relative_to(HEADS).parts)  # so many dots lead to heads/ itself
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= depth, f"line {node.lineno} imports from outside heads/"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            for name in names:
                package = str(name).partition(".")[0]
                assert package in ALLOWED, f"line {node.lineno} imports {package}"
