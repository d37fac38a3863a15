"""Layers of the heads in Python floats and loops, to compute what a head should give.

One utterance at a time: a sequence is a list of vectors, without padding and without a mask.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mser.heads.modules.attention import AttentionStep, FeedForwardStep

Vector = list[float]


def shaken(module: nn.Module) -> Any:
    """The module in float64, its parameters all random: LayerNorms and biases too."""
    g = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=g) * 0.7
    return module.double()


def linear(layer: Any, x: Vector) -> Vector:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def norm(layer: Any, x: Vector) -> Vector:
    mean = sum(x) / len(x)
    spread = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + layer.eps)
    scale, shift = layer.weight.tolist(), layer.bias.tolist()
    return [(v - mean) / spread * a + b for v, a, b in zip(x, scale, shift, strict=True)]


def gelu(x: Vector) -> Vector:
    return [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]


def add(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def attended_heads(layer: Any, queries: Sequence[Vector], memory: Sequence[Vector]) -> list[Vector]:
    """softmax(q·k / √d) v for every head, the heads side by side."""
    width = len(memory[0])
    d = width // layer.n_heads
    pairs = [linear(layer.key_value, row) for row in memory]
    keys, values = [p[:width] for p in pairs], [p[width:] for p in pairs]
    out = []
    for x in queries:
        q, row = linear(layer.query, x), []
        for head in range(layer.n_heads):
            of = range(head * d, head * d + d)
            weights = [math.exp(sum(q[c] * k[c] for c in of) / math.sqrt(d)) for k in keys]
            row += [
                sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights)
                for c in of
            ]
        out.append(row)
    return out


def attend(step: AttentionStep, xs: list[Vector], memory: list[Vector] | None = None) -> Any:
    queries = [norm(step.norm, x) for x in xs]
    context = queries if memory is None else [norm(step.memory_norm, x) for x in memory]
    heads = attended_heads(step.attention, queries, context)
    return [add(x, linear(step.attention.out, h)) for x, h in zip(xs, heads, strict=True)]


def feed_forward(step: FeedForwardStep, x: Vector) -> Vector:
    return add(x, linear(step.layers[2], gelu(linear(step.layers[0], norm(step.norm, x)))))
