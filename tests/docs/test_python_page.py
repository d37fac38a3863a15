"""The examples of the page on Python run as they stand, in as few lines as they promise."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.pipeline.corpora import synthetic

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def code_lines(block: str) -> int:
    return len([line for line in block.splitlines() if line.strip()])


def test_the_tasks_are_short() -> None:
    sklearn, _, probe, _, new_audio, _ = map(code_lines, blocks())
    assert sklearn <= 5
    assert probe <= 10
    assert new_audio <= 4


def test_the_examples_run(
    filled_cache: Path,
    corpus_root: Path,
    encoders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSER_CACHE", str(filled_cache))
    clip = synthetic.load(corpus_root).utterances[0].audio
    names: dict[str, Any] = {
        name: np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        for name in ("wave_a", "wave_b")
    }
    here = {
        '"meld"': '"synthetic"',
        '"facebook/wav2vec2-base"': repr(encoders["speech"]),
        "layer=9": "layer=1",
        '"6,9"': '"1,2"',
        'split="train"': 'session="ses01"',
        'split="test"': 'session="ses02"',
        'encoders={"speech": None}': 'encoders={"speech": None}, out="runs/meld-linear"',
        '"clip.wav"': repr(str(clip)),
        'fold="test"': 'fold="ses03"',
        "print(": "log(",
    }
    printed: list[tuple[Any, ...]] = []
    names["log"] = lambda *values: printed.append(values)
    for block in blocks():
        code = block
        for text, replacement in here.items():
            code = code.replace(text, replacement)
        exec(compile(code, "python.md", "exec"), names)
    layers = [values[0] for values in printed[:-1]]
    assert layers == list(names["speech"].layers)
    assert printed[-1][0] in names["run"].classes
    assert not names["module"].training
    assert [states.shape[0] for states in names["states"]] == [2, 2]
