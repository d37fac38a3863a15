"""The projections to the width of a head: their formulas and their dropout."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mser.heads.modules.projection import InputProjection, Projections, StageProjections
from mser.tests.support.slow_layers import (
    assert_dropout,
    double,
    gelu,
    linear,
    norm,
    randomised,
)

RATE = 0.3


class Case(NamedTuple):
    """A projection, and its expected output without dropout."""

    module: Any
    expected: Tensor

    def outputs(self, x: Tensor) -> Tensor:
        several = isinstance(self.module, Projections)
        out: Tensor = self.module({"text": x.unsqueeze(1)})["text"] if several else self.module(x)
        return out


def case(kind: type, x: Tensor) -> Case:
    """Return the case for GELU(Linear(LN(x))), or for Linear(LN(x)) of one cached layer."""
    if kind is InputProjection:
        module = randomised(InputProjection(5, 6, RATE))
        layers = module.norm, module.linear
    else:
        module = randomised(Projections({"text": 5}, {"text": 1}, 6, RATE))
        layers = module.norms["text"], module.linears["text"]
    rows = [[linear(layers[1], norm(layers[0], row)) for row in rows] for rows in x.tolist()]
    if kind is InputProjection:
        rows = [[gelu(row) for row in utterance] for utterance in rows]
    return Case(module, torch.tensor(rows, dtype=torch.float64))


both = pytest.mark.parametrize("kind", [InputProjection, Projections])


@both
def test_a_projection_follows_its_formula(kind: type) -> None:
    x = double(1, 2, 3, 5)
    projection = case(kind, x)
    projection.module.eval()
    torch.testing.assert_close(projection.outputs(x), projection.expected)


@both
def test_training_drops_the_same_channels_at_all_positions_of_an_utterance(kind: type) -> None:
    x = double(1, 2, 3, 5)
    projection = case(kind, x)
    torch.manual_seed(0)
    outputs = [projection.outputs(x) for _ in range(300)]
    # A channel of an utterance is dropped as a whole, so one position shows all draws.
    assert_dropout([out[:, 0] for out in outputs], projection.expected[:, 0], RATE)
    for out in outputs:
        dropped = (out[:, :1] == 0).expand_as(out)
        kept = projection.expected / (1 - RATE)
        torch.testing.assert_close(out, torch.where(dropped, 0.0, kept))


def test_each_stage_has_its_own_projection_of_its_own_layer() -> None:
    stages = randomised(StageProjections(5, 6, RATE, (1, 0, 1))).eval()
    x = double(1, 2, 2, 3, 5)
    outputs = stages(x)
    assert len(outputs) == 3
    for out, project, layer in zip(outputs, stages.stems, (1, 0, 1), strict=True):
        torch.testing.assert_close(out, project(x[:, layer]))
    assert not torch.allclose(outputs[0], outputs[2])


def test_concatenated_layers_are_projected_side_by_side() -> None:
    projections = Projections({"speech": 3}, {"speech": 2}, 5, 0.0, "concat").eval()
    x = torch.randn(4, 2, 6, 3)
    joined = torch.cat([x[:, 0], x[:, 1]], dim=2)
    expected = projections.linears["speech"](projections.norms["speech"](joined))
    assert expected.shape == (4, 6, 5)
    torch.testing.assert_close(projections({"speech": x})["speech"], expected)
