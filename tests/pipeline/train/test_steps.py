"""How many optimizer steps a training makes, and where a user sees the number."""

from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.train import train_head
from mser.tests.support.train_runs import log, made_both, official, tiny

BATCHES = 3  # 24 utterances, 8 in a batch


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities. Do not change them."""
    return made_both(tmp_path_factory.mktemp("steps") / "cache", official())


@pytest.mark.parametrize(
    ("head", "asked", "changes", "of_an_epoch"),
    [
        ("linear", (), {}, BATCHES),
        ("linear", ("accumulate=2",), {}, 2),
        ("hbf", (), {}, 2 * BATCHES),  # a step for each modality
        ("hbf", ("head.mb=false",), {}, BATCHES),
        ("hbf", ("head.mb=false", "head.joint_steps=2"), {}, 2 * BATCHES),
        ("hbf", ("head.joint_steps=2",), {"encoders": {"text": None}}, 2 * BATCHES),
    ],
)
def test_the_steps_are_in_the_log_and_in_the_metrics(
    cache: Path,
    tmp_path: Path,
    head: str,
    asked: tuple[str, ...],
    changes: dict[str, Any],
    of_an_epoch: int,
) -> None:
    run = train_head(tiny(head, cache, tmp_path / "run", "epochs=2", *asked, **changes))
    assert [line["steps"] for line in log(run)] == [of_an_epoch, 2 * of_an_epoch]
    assert [fold["steps"] for fold in run.metrics["folds"]] == [2 * of_an_epoch]
