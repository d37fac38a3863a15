"""Each pooling against its formula, in edge cases, and its gradients.

The tests of the masked mean are in ``test_modules.py``.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads.modules.masks import length_mask
from mser.heads.modules.pooling import AttentionPooling, masked_mean_std
from mser.tests.support.slow_layers import double

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=4)
seeds = st.integers(0, 2**31)
quick = settings(max_examples=25, deadline=None)


def attention_pooling(width: int = 3) -> Any:
    torch.manual_seed(0)
    return AttentionPooling(width).double()


def with_nan(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.unsqueeze(2), x, math.nan)


@given(lengths, seeds, st.integers(1, 3), st.floats(-1e3, 1e3))
@quick
def test_mean_and_deviation_follow_their_formulas(
    counts: list[int], seed: int, extra: int, offset: float
) -> None:
    size = max(counts) + extra
    mask = length_mask(torch.tensor(counts), size)
    x = double(seed, len(counts), size, 3) + offset
    pooled = masked_mean_std(with_nan(x, mask), mask, eps=1e-3)
    for i, n in enumerate(counts):
        for d in range(3):
            values = [float(x[i, t, d]) for t in range(n)]
            mean = sum(values) / n if n else 0.0
            variance = sum((v - mean) ** 2 for v in values) / n if n else -1e-3
            assert math.isclose(float(pooled[i, d]), mean, rel_tol=1e-9, abs_tol=1e-9)
            deviation = math.sqrt(variance + 1e-3)
            assert math.isclose(float(pooled[i, 3 + d]), deviation, rel_tol=1e-7, abs_tol=1e-9)


@given(lengths, seeds, st.integers(1, 3))
@quick
def test_attention_pooling_follows_its_formula(counts: list[int], seed: int, extra: int) -> None:
    size = max(counts) + extra
    mask = length_mask(torch.tensor(counts), size)
    x = double(seed, len(counts), size, 3)
    pooling = attention_pooling()
    pooled = pooling(with_nan(x, mask), mask).detach()
    inner, _, outer = pooling.scores.requires_grad_(False)
    for i, n in enumerate(counts):
        weights = []
        for t in range(n):
            units = [
                math.tanh(sum(float(inner.weight[k, d] * x[i, t, d]) for d in range(3)) + bias)
                for k, bias in enumerate(inner.bias.tolist())
            ]
            weights.append(
                math.exp(sum(v * u for v, u in zip(outer.weight[0], units, strict=True)))
            )
        for d in range(3):
            slow = sum(w * float(x[i, t, d]) for t, w in enumerate(weights)) / (sum(weights) or 1)
            assert math.isclose(float(pooled[i, d]), slow, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("kind", ["length one", "all equal", "all zero", "empty"])
@pytest.mark.parametrize("pool", [masked_mean_std, attention_pooling().float()])
def test_gradients_are_finite_in_edge_cases(kind: str, pool) -> None:
    n = {"length one": 1, "empty": 0}.get(kind, 4)
    x = torch.full((2, 5, 3), 0.0 if kind == "all zero" else 7.0)
    mask = length_mask(torch.tensor([n, 3]), 5)
    x = with_nan(x, mask).requires_grad_()
    pooled = pool(x, mask)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not x.grad[~mask].any()
    assert n > 0 or not pooled[0].any()


def test_large_scores_do_not_overflow() -> None:
    pooling = attention_pooling()
    pooling.scores[2].weight.data *= 1e6
    x, mask = double(0, 2, 5, 3), length_mask(torch.tensor([5, 2]), 5)
    pooled = pooling(x, mask)
    for i, n in enumerate([5, 2]):
        best = int(pooling.scores(x)[i, :n, 0].argmax())
        torch.testing.assert_close(pooled[i], x[i, best])


def test_the_gradients_of_the_poolings_are_their_derivatives() -> None:
    mask = length_mask(torch.tensor([4, 2, 1]), 4)
    x = double(0, 3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_mean_std(x, mask), (x,))
    pooling = attention_pooling()
    names = [name for name, _ in pooling.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Any:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(pooling, state, (x, mask))

    inputs = [p.detach().requires_grad_() for p in pooling.parameters()]
    assert torch.autograd.gradcheck(run, (x, *inputs))
