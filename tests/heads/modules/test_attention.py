"""The steps of the transformer blocks: their formulas and their dropout."""

import pytest
import torch
from torch import Tensor

from mser.heads.modules.attention import AttentionStep, FeedForwardStep, PreNormBlock
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_layers import (
    assert_dropout,
    attention_branch,
    double,
    feed_forward_branch,
    pre_norm_block,
    randomised,
)

WIDTH, HEADS, RATE = 4, 2, 0.3
LENGTHS, MEMORY_LENGTHS = [5, 3], [2, 4]


def as_tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("foreign", [False, True], ids=["to itself", "to a memory"])
def test_an_attention_step_adds_its_branch_under_dropout(foreign: bool) -> None:
    step = randomised(AttentionStep(WIDTH, HEADS, RATE, foreign=foreign))
    x, memory = double(1, 2, 5, WIDTH), double(2, 2, 4, WIDTH)
    lengths = MEMORY_LENGTHS if foreign else LENGTHS
    mask = length_mask(torch.tensor(lengths), 4 if foreign else 5)
    given = (x, mask, memory) if foreign else (x, mask)
    torch.manual_seed(0)
    outputs = [step(*given) - x for _ in range(100)]
    exact = step.eval()(*given) - x
    for i, n in enumerate(LENGTHS):
        rows = memory[i, : MEMORY_LENGTHS[i]].tolist() if foreign else None
        branch = as_tensor(attention_branch(step, x[i, :n].tolist(), rows))
        torch.testing.assert_close(exact[i, :n], branch)
        assert_dropout([out[i, :n] for out in outputs], branch, RATE)


def test_a_feed_forward_step_adds_its_branch_under_dropout() -> None:
    step, x = randomised(FeedForwardStep(WIDTH, RATE)), double(1, 1, 5, WIDTH)
    torch.manual_seed(0)
    outputs = [step(x)[0] - x[0] for _ in range(100)]
    branch = as_tensor([feed_forward_branch(step, row) for row in x[0].tolist()])
    torch.testing.assert_close(step.eval()(x)[0] - x[0], branch)
    assert_dropout(outputs, branch, RATE)


def test_a_block_is_attention_then_feed_forward() -> None:
    block = randomised(PreNormBlock(WIDTH, HEADS, RATE)).eval()
    x = double(1, 2, 5, WIDTH)
    y = block(x, length_mask(torch.tensor(LENGTHS), 5))
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(y[i, :n], as_tensor(pre_norm_block(block, x[i, :n].tolist())))


def test_part_of_the_rows_gives_these_rows_of_the_full_block() -> None:
    block = randomised(PreNormBlock(WIDTH, HEADS, RATE)).eval()
    x, mask = double(1, 2, 5, WIDTH), length_mask(torch.tensor(LENGTHS), 5)
    torch.testing.assert_close(block(x[:, 1:3], mask, memory=x), block(x, mask)[:, 1:3])
