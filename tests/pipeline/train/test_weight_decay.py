"""Weight decay: on the matrices of layers only, and a note where adam would not decay."""

from pathlib import Path

import pytest
from torch import nn

from mser.heads import HEADS, build_head
from mser.pipeline.train.trainer import _parameter_groups
from mser.tests.conftest import Call
from mser.tests.support.small_heads import SMALL
from mser.tests.support.train_runs import made_both, official


@pytest.mark.parametrize("name", sorted(HEADS))
def test_only_the_matrices_of_layers_decay(name: str) -> None:
    head = build_head(name, {"speech": 6, "text": 5}, 3, {"speech": 4, "text": 4}, **SMALL[name])
    decayed, others = _parameter_groups(head, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    of = {id(parameter): name for name, parameter in head.named_parameters()}
    names = [[of[id(parameter)] for parameter in group["params"]] for group in (decayed, others)]
    assert sorted([*names[0], *names[1]]) == sorted(of.values())
    for decays in names[0]:  # no bias, norm or mix, and no vector that is learned as such
        module, _, parameter = decays.rpartition(".")
        assert parameter.startswith("weight"), decays
        assert not isinstance(head.get_submodule(module), nn.LayerNorm), decays
        assert head.get_parameter(decays).dim() == 2
    linear = {f"{n}.weight" for n, m in head.named_modules() if isinstance(m, nn.Linear)}
    assert linear <= set(names[0])


def test_adam_with_weight_decay_prints_a_note(call: Call, tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", official())
    command = ("train-head", "--head", "query", "--dataset", "made-up", "--cache", cache)
    small = [f"head.{k}={v}" for k, v in SMALL["query"].items() if k != "layer"]
    asked = [part for text in ("epochs=1", *small) for part in ("--set", text)]
    code, _, err = call(*command, *asked, "--set", "optimizer=adam")
    assert code == 0, err
    assert "note: adam adds weight_decay=0.01 to the gradient" in err
    code, _, err = call(*command, *asked, "--set", "optimizer=adam", "--set", "weight_decay=0")
    assert code == 0
    assert "note: adam" not in err
