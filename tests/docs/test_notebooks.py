"""The notebooks in the docs run on the cache that their text names."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def cells(notebook: Path) -> list[str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize("name", ["probing", "own_head", "comparing"])
def test_a_notebook_runs(
    name: str,
    filled_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mser-demo").mkdir()
    (tmp_path / "mser-demo" / "cache").symlink_to(filled_cache)
    names: dict[str, Any] = {}
    for number, code in enumerate(cells(FOLDER / f"{name}.ipynb"), 1):
        exec(compile(code, f"{name}.ipynb, cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    match name:
        case "probing":
            assert (
                len(names["scores"]) == len(names["speech"].layers) + len(names["text"].layers) + 1
            )
            assert names["scores"]["both"] > 1.5 / len({*names["y"]})  # far above chance
        case "own_head":
            assert type(names["module"]).__name__ == "LateFusion"
            assert names["run"].confusion.sum() == names["run"].metrics["test_utterances"]
        case "comparing":
            assert "UA" in printed
            assert (tmp_path / "report.html").stat().st_size > 1000


def test_every_notebook_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [
        "comparing",
        "own_head",
        "probing",
    ]
