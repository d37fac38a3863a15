"""Layers of the heads in Python floats and loops: the expected values of tests.

They follow the formulas and process one utterance at a time: a sequence is a list of vectors,
without padding and without a mask.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mser.heads.modules.attention import Attention, AttentionStep, FeedForwardStep, PreNormBlock

Vector = list[float]


def double(seed: int, *shape: int) -> Tensor:
    """Return standard normal float64 numbers that depend on the seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> Any:
    """Return the module in float64 with random parameters, also those that start as 0 or 1."""
    g = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=g) * 0.7
    return module.double()


def silence(layer: Any) -> None:
    """Set a linear layer to zero, so that it returns zeros."""
    layer.weight.data.zero_()
    layer.bias.data.zero_()


def linear(layer: Any, x: Vector) -> Vector:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def norm(layer: Any, x: Vector) -> Vector:
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + layer.eps)
    gain, bias = layer.weight.tolist(), layer.bias.tolist()
    return [(v - mean) / deviation * a + b for v, a, b in zip(x, gain, bias, strict=True)]


def gelu(x: Vector) -> Vector:
    return [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]


def add(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def mean(rows: Sequence[Vector]) -> Vector:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def attended_heads(
    layer: Attention, queries: Sequence[Vector], memory: Sequence[Vector]
) -> list[Vector]:
    """Return softmax(q·k / √d) v of every attention head, concatenated."""
    width = len(memory[0])
    d = width // layer.n_heads
    pairs = [linear(layer.key_value, row) for row in memory]
    keys, values = [p[:width] for p in pairs], [p[width:] for p in pairs]
    out = []
    for x in queries:
        q, row = linear(layer.query, x), []
        for head in range(layer.n_heads):
            channels = range(head * d, head * d + d)
            weights = [math.exp(sum(q[c] * k[c] for c in channels) / math.sqrt(d)) for k in keys]
            row += [
                sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights)
                for c in channels
            ]
        out.append(row)
    return out


def attention_branch(
    step: AttentionStep, xs: list[Vector], memory: list[Vector] | None = None
) -> list[Vector]:
    """Return Attention(LN(x), LN(memory)) without the residual."""
    queries = [norm(step.norm, x) for x in xs]
    context = queries if memory is None else [norm(step.memory_norm, x) for x in memory]
    heads = attended_heads(step.attention, queries, context)
    return [linear(step.attention.out, row) for row in heads]


def attend(
    step: AttentionStep, xs: list[Vector], memory: list[Vector] | None = None
) -> list[Vector]:
    branch = attention_branch(step, xs, memory)
    return [add(x, row) for x, row in zip(xs, branch, strict=True)]


def feed_forward_branch(step: FeedForwardStep, x: Vector) -> Vector:
    """Return FFN(LN(x)) without the residual."""
    return linear(step.layers[2], gelu(linear(step.layers[0], norm(step.norm, x))))


def feed_forward(step: FeedForwardStep, x: Vector) -> Vector:
    return add(x, feed_forward_branch(step, x))


def pre_norm_block(block: PreNormBlock, xs: list[Vector]) -> list[Vector]:
    return [feed_forward(block.feed_forward, x) for x in attend(block.attend, xs)]


def assert_dropout(outputs: Sequence[Tensor], expected: Tensor, rate: float) -> None:
    """Check that outputs are ``expected`` under dropout.

    Every element is 0 or its value in ``expected`` divided by 1 - rate, and the share of zeros over
    all outputs is the rate within 5 standard deviations.
    """
    drawn = torch.stack(list(outputs))
    dropped = drawn.abs() < 1e-12
    kept = (expected / (1 - rate)).expand_as(drawn)
    torch.testing.assert_close(drawn, torch.where(dropped, 0.0, kept))
    share, n = float(dropped.double().mean()), drawn.numel()
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / n), share
