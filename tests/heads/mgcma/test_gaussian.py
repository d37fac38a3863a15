"""The constructor of DAM, the distance and the similarity against MGCMA's eqs. 1–5."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mser.heads import HeadError
from mser.heads.mgcma.gaussian import (
    Gaussian,
    GaussianConstructor,
    distribution_loss,
    similarity,
    utterance_gaussian,
    wasserstein2,
)
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_contrast import distance, gaussians
from mser.tests.support.slow_layers import (
    Vector,
    add,
    assert_dropout,
    attended_heads,
    double,
    feed_forward,
    feed_forward_branch,
    gelu,
    linear,
    norm,
    randomised,
    silence,
)

seeds = st.integers(0, 2**31)
quick = settings(max_examples=20, deadline=None)

WIDTH, HEADS = 4, 2


# Eqs. 1–3, the constructor.


def attended(build: Any, rows: list[Vector]) -> list[Vector]:
    """Return [head_1, …, head_k] Wᵒ at every position, or without Wᵒ (eqs. 1–3)."""
    embedded = [norm(build.embed[2], gelu(linear(build.embed[0], row))) for row in rows]
    heads = attended_heads(build.attention, embedded, embedded)
    with_output = isinstance(build.attention.out, nn.Linear)
    return [linear(build.attention.out, row) for row in heads] if with_output else heads


@pytest.mark.parametrize("output_projection", [True, False])
@given(seeds)
@settings(max_examples=5, deadline=None)
def test_the_constructor_follows_its_equations(output_projection: bool, seed: int) -> None:
    constructor = GaussianConstructor(WIDTH, HEADS, 0.1, output_projection=output_projection)
    build = randomised(constructor).eval()
    assert isinstance(build.attention.out, nn.Linear) is output_projection
    x, mask = double(seed, 2, 6, WIDTH), length_mask(torch.tensor([6, 3]), 6)
    mean, log_deviation = build(x, mask)
    for i, n in enumerate([6, 3]):
        rows = x[i, :n].tolist()
        for t, (row, h) in enumerate(zip(rows, attended(build, rows), strict=True)):
            mu = add(row, linear(build.mean, h[: WIDTH // 2]))
            sigma = linear(build.log_deviation, h[WIDTH // 2 :])
            assert mean[i, t].tolist() == pytest.approx(feed_forward(build.mean_step, mu))
            slow = feed_forward(build.log_deviation_step, sigma)
            assert log_deviation[i, t].tolist() == pytest.approx(slow)


def test_the_constructor_needs_an_even_width() -> None:
    with pytest.raises(HeadError, match=r"width must be even .* not 9"):
        GaussianConstructor(9, 3, 0.0)


@pytest.mark.parametrize(
    "branch", ["mean", "log_deviation", "mean_step", "log_deviation_step"], ids=str
)
def test_each_branch_of_the_constructor_has_dropout(branch: str) -> None:
    rate = 0.3
    build, x = randomised(GaussianConstructor(WIDTH, HEADS, rate)), double(0, 1, 6, WIDTH)
    rows = x[0].tolist()
    is_mean = branch.startswith("mean")
    step = build.mean_step if is_mean else build.log_deviation_step
    start = rows if is_mean else [[0.0] * WIDTH] * 6  # μ has a residual of x, log σ has none
    if branch.endswith("_step"):  # the other branch of the pair is zero
        silence(build.mean if is_mean else build.log_deviation)
        expected = [feed_forward_branch(step, row) for row in start]
    else:
        silence(step.layers[2])
        half = slice(WIDTH // 2) if is_mean else slice(WIDTH // 2, WIDTH)
        layer = build.mean if is_mean else build.log_deviation
        expected = [linear(layer, row[half]) for row in attended(build, rows)]
    torch.manual_seed(0)
    mask = length_mask(torch.tensor([6]), 6)
    outputs = [build(x, mask)[0 if is_mean else 1][0] for _ in range(100)]
    changes = [out - torch.tensor(start, dtype=torch.float64) for out in outputs]
    assert_dropout(changes, torch.tensor(expected, dtype=torch.float64), rate)


def test_an_utterance_is_the_mean_of_its_positions() -> None:
    mean, log_deviation = double(0, 2, 4, 3), double(1, 2, 4, 3)
    mean[1, 2:] = log_deviation[1, 2:] = math.nan  # padding
    utterance = utterance_gaussian(mean, log_deviation, length_mask(torch.tensor([4, 2]), 4))
    for i, n in enumerate([4, 2]):
        for c in range(3):
            mu = sum(float(mean[i, t, c]) for t in range(n)) / n
            sigma = sum(math.exp(log_deviation[i, t, c]) for t in range(n)) / n
            assert float(utterance.mean[i, c]) == pytest.approx(mu)
            assert float(utterance.deviation[i, c]) == pytest.approx(sigma)


def test_both_branches_read_all_attention_heads_only_with_the_output_projection() -> None:
    """Without Wᵒ, μ reads the first half of the attention heads only."""
    x, mask = double(0, 1, 4, WIDTH), length_mask(torch.tensor([4]), 4)
    for output_projection in (True, False):
        build = randomised(
            GaussianConstructor(WIDTH, HEADS, 0.0, output_projection=output_projection)
        )
        before, _ = build(x, mask)
        build.attention.key_value.bias.data[-1] += 1.0  # a value of the last attention head
        after, _ = build(x, mask)
        assert torch.allclose(before, after) is not output_projection


def test_extreme_deviations_are_bounded() -> None:
    log_deviation = torch.tensor([[[-300.0, 0.5, 300.0]]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    utterance = utterance_gaussian(torch.zeros(1, 1, 3), log_deviation, mask)
    expected = [math.exp(-10), math.exp(0.5), math.exp(10)]
    assert utterance.deviation.tolist()[0] == pytest.approx(expected)
    loss = distribution_loss(utterance, Gaussian(*(x.flip(1) for x in utterance)), 0.07, 0.005)
    loss.backward()
    assert loss.isfinite()
    assert log_deviation.grad is not None
    assert log_deviation.grad.isfinite().all()


def test_the_gradients_of_the_constructor_are_its_derivatives() -> None:
    build = randomised(GaussianConstructor(WIDTH, HEADS, 0.0))
    mask = length_mask(torch.tensor([3, 2]), 3)

    def run(x: Tensor) -> Gaussian:
        mean, log_deviation = build(x, mask)
        return utterance_gaussian(mean, log_deviation, mask)

    assert torch.autograd.gradcheck(run, [double(0, 2, 3, WIDTH).requires_grad_()])


# Eqs. 4 and 5, distance and similarity.


@given(seeds, st.integers(1, 5), st.integers(1, 5))
@quick
def test_the_wasserstein_distance_follows_its_formula(
    seed: int, n_first: int, n_second: int
) -> None:
    a, b = gaussians(seed, n_first), gaussians(seed + 2, n_second)
    fast = wasserstein2(a, b)
    assert fast.shape == (n_first, n_second)
    for i in range(n_first):
        for j in range(n_second):
            assert float(fast[i, j]) == pytest.approx(distance(a, i, b, j))
    assert torch.equal(fast, wasserstein2(b, a).T)
    assert wasserstein2(a, a).diagonal().tolist() == [0.0] * n_first


def test_the_distance_equals_the_formula_for_any_covariances() -> None:
    """‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁^½ Σ₂ Σ₁^½)^½)."""
    a, b = gaussians(0, 1), gaussians(2, 1)
    first, second = a.deviation[0].square().diag(), b.deviation[0].square().diag()
    root = torch.linalg.cholesky(first)
    values = torch.linalg.eigvalsh(root @ second @ root)
    trace = first.trace() + second.trace() - 2 * values.sqrt().sum()
    general = (a.mean - b.mean).square().sum() + trace
    torch.testing.assert_close(wasserstein2(a, b)[0, 0], general)


def test_the_distance_is_exact_far_from_the_origin() -> None:
    a = Gaussian(torch.full((1, 768), 4096.0), torch.full((1, 768), 2.0))
    b = Gaussian(a.mean + 0.5, a.deviation + 0.25)
    assert wasserstein2(a, b).item() == 768 * (0.25 + 0.0625)


def test_similarity_falls_with_the_distance() -> None:
    assert similarity(torch.tensor([0.0, 100.0, 1000.0]), 0.005).tolist() == [4.0, 3.5, -1.0]
    assert similarity(torch.tensor([2.0]), 3.0, 1.0).tolist() == [-5.0]
