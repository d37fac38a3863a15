"""Runs of heads whose defaults have changed since: their folders open with the former defaults."""

import shutil
import tomllib
from inspect import signature
from pathlib import Path

import pytest
import tomli_w

from mser.heads import HEADS
from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.train import train_head
from mser.tests.support.train_runs import made_both, official, read_json, tiny

FORMER = [
    "head.output_projection=false",
    "head.token_final_norm=false",
    "head.false_negatives=keep",
]


def test_an_old_run_opens_with_the_former_defaults_of_its_head(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", official(8, 4, 8))
    run = train_head(tiny("mgcma", cache, tmp_path / "run", "epochs=1", *FORMER))
    content = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
    for name in HEADS["mgcma"].former_defaults:
        del content["head_options"][name]
    old = shutil.copytree(run.path, tmp_path / "old")
    (old / "config.toml").write_text(tomli_w.dumps(content | {"format": 2}), encoding="utf-8")

    assert evaluate(old, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    again = train_head(tiny("mgcma", cache, old, "epochs=1", *FORMER))
    assert again.metrics == read_json(run.path / "metrics.json")
    with pytest.raises(UsageError, match="belongs to another run, with head_options"):
        train_head(tiny("mgcma", cache, old, "epochs=1"))


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_former_default_is_a_value_of_an_option_and_not_its_default(name: str) -> None:
    head = HEADS[name]
    for option, value in head.former_defaults.items():
        default = signature(head).parameters[option].default
        assert type(value) is type(default)
        assert value != default
