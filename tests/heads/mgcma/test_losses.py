"""The two losses of MGCMA against eqs. 6–8 and 9–11, computed here with Python floats."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads.mgcma.alignment import instance_loss
from mser.heads.mgcma.gaussian import (
    Gaussian,
    distribution_loss,
    similarity,
    utterance_gaussian,
    wasserstein2,
)
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_contrast import distance, gaussians, slow_info_nce
from mser.tests.support.slow_layers import Vector, double

seeds = st.integers(0, 2**31)
quick = settings(max_examples=20, deadline=None)
present_lists = st.lists(st.booleans(), min_size=1, max_size=6)


@given(seeds, present_lists, st.floats(0.05, 2), st.floats(0.001, 0.2))
@quick
def test_the_distribution_loss_follows_its_formula(
    seed: int, present: list[bool], tau: float, p: float
) -> None:
    a, b = gaussians(seed, len(present)), gaussians(seed + 2, len(present))
    kept = [i for i, is_present in enumerate(present) if is_present]
    slow = slow_info_nce(lambda i, j: (-p * distance(a, i, b, j) + 4) / tau, kept)
    fast = distribution_loss(a, b, tau, p, torch.tensor(present))
    assert float(fast) == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@given(seeds, present_lists, st.floats(0.05, 2))
@quick
def test_the_instance_loss_follows_its_formula(
    similarity: str, seed: int, present: list[bool], tau: float
) -> None:
    a, b = double(seed, len(present), 3), double(seed + 1, len(present), 3)

    def score(i: int, j: int) -> float:
        x: Vector = a[i].tolist()
        y: Vector = b[j].tolist()
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        return dot / (math.hypot(*x) * math.hypot(*y) if similarity == "cosine" else 1) / tau

    slow = slow_info_nce(score, [i for i, is_present in enumerate(present) if is_present])
    fast = instance_loss(a, b, tau, torch.tensor(present), None, similarity)
    assert float(fast) == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_both_losses_leave_false_negatives_out(similarity: str) -> None:
    a, b, n = gaussians(0, 5), gaussians(2, 5), range(5)
    group = [0, 1, 0, 2, 0]
    repeated = torch.tensor([[i != j and group[i] == group[j] for j in n] for i in n])

    def same(i: int, j: int) -> bool:
        return group[i] == group[j]

    slow = slow_info_nce(lambda i, j: (4 - 0.1 * distance(a, i, b, j)) / 0.5, n, same)
    fast = distribution_loss(a, b, 0.5, 0.1, None, repeated)
    assert float(fast) == pytest.approx(slow)
    x, y = a.mean, b.mean
    if similarity == "cosine":
        x, y = (z / z.square().sum(1, keepdim=True).sqrt() for z in (x, y))
    slow = slow_info_nce(lambda i, j: float(x[i] @ y[j]) / 0.5, n, same)
    fast = instance_loss(a.mean, b.mean, 0.5, None, repeated, similarity)
    assert float(fast) == pytest.approx(slow)


@pytest.mark.parametrize("present", [None, [False] * 3, [False, True, False]])
def test_without_negatives_the_losses_and_their_gradients_are_zero(
    present: list[bool] | None,
) -> None:
    n = 1 if present is None else 3
    mask = None if present is None else torch.tensor(present)
    a, b = gaussians(0, n), gaussians(2, n)
    inputs = [x.requires_grad_() for x in (*a, *b)]
    loss = distribution_loss(a, b, 0.07, 0.005, mask) + instance_loss(a[0], b[0], 0.07, mask)
    loss.backward()
    assert loss.item() == 0
    assert all(x.grad is not None and not x.grad.any() for x in inputs)


def test_equal_utterances_give_the_loss_of_chance_and_finite_gradients() -> None:
    inputs = [torch.ones(4, 3, requires_grad=True) for _ in range(4)]
    a, b = Gaussian(*inputs[:2]), Gaussian(*inputs[2:])
    for loss in (distribution_loss(a, b, 0.07, 0.005), instance_loss(a[0], b[0], 0.07)):
        assert loss.item() == pytest.approx(math.log(4))
        loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs if x.grad is not None)
    assert all(x.grad is not None for x in inputs)


def test_the_losses_are_computed_in_float32_under_autocast_and_for_half_inputs() -> None:
    a, b = (Gaussian(*(x.float() for x in gaussians(s, 6, 32))) for s in (0, 2))
    sequence, mask = double(5, 2, 9, 32).float(), length_mask(torch.tensor([9, 4]), 9)

    def values() -> list[Tensor]:
        utterance = utterance_gaussian(sequence, sequence, mask)
        return [*utterance, wasserstein2(a, b), distribution_loss(a, b, 0.07, 0.1)]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = values()
    assert all(torch.equal(x, y) for x, y in zip(inside, values(), strict=True))
    half = Gaussian(a.mean.half(), a.deviation.half())
    assert distribution_loss(half, half, 0.07, 0.1).dtype == torch.float32
    assert utterance_gaussian(sequence.half(), sequence.half(), mask)[1].dtype == torch.float32


def test_the_gradients_of_the_equations_are_their_derivatives() -> None:
    inputs = [x.requires_grad_() for x in (*gaussians(0, 3, 2), *gaussians(2, 3, 2))]
    present = torch.tensor([True, False, True])

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        a, b = Gaussian(*x[:2]), Gaussian(*x[2:])
        return (
            wasserstein2(a, b),
            similarity(wasserstein2(a, b), 0.3),
            distribution_loss(a, b, 0.5, 0.3),
            distribution_loss(a, b, 0.5, 0.3, present),
            instance_loss(a.mean, b.mean, 0.5, present),
            instance_loss(a.mean, b.mean, 0.5),
        )

    assert torch.autograd.gradcheck(run, inputs)
