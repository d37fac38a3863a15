"""The running average of the weights, which is what is tested."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from mser.heads.linear import LinearProbe
from mser.pipeline.errors import UsageError
from mser.pipeline.train import train_head
from mser.pipeline.train.weight_average import WeightAverage
from mser.tests.support.train_runs import made_both, official, tiny


def test_the_average_is_the_recursion_of_its_docstring() -> None:
    torch.manual_seed(0)
    head = LinearProbe({"speech": 5}, n_classes=3)
    average = WeightAverage(head, decay=0.8)
    expected: np.ndarray | None = None
    for step in range(60):
        with torch.no_grad():
            head.classifier.weight.copy_(torch.randn(3, 10))
        average.update(head)
        weights = head.classifier.weight.detach().double().numpy().copy()
        if expected is None:
            expected = weights
        else:
            d = min(0.8, (1 + step) / (10 + step))
            expected = d * expected + (1 - d) * weights
    averaged = average.head
    assert isinstance(averaged, LinearProbe)
    np.testing.assert_allclose(averaged.classifier.weight.detach(), expected, atol=1e-6)


def test_the_average_changes_what_is_tested_and_not_the_training(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", official(16, 8, 8))
    runs = [
        train_head(tiny("query", cache, tmp_path / ema, f"ema={ema}")) for ema in ("0.0", "0.9")
    ]
    plain, averaged = (
        [json.loads(line) for line in (run.path / "log.jsonl").read_text("utf-8").splitlines()]
        for run in runs
    )
    assert [line["train"] for line in plain] == [line["train"] for line in averaged]
    assert [line["validation"] for line in plain] != [line["validation"] for line in averaged]


def test_a_run_from_before_the_average_is_continued_without_it(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", official(8, 4, 8))
    run = train_head(tiny("query", cache, tmp_path / "run", "epochs=1", "ema=0.0"))
    config = run.path / "config.toml"
    content = tomllib.loads(config.read_text("utf-8"))
    del content["ema"]
    config.write_text(tomli_w.dumps(content | {"format": 3}), "utf-8")

    again = train_head(tiny("query", cache, run.path, "epochs=1", "ema=0.0"))
    assert again.metrics == run.metrics
    with pytest.raises(UsageError, match="belongs to another run, with ema"):
        train_head(tiny("query", cache, run.path, "epochs=1"))
