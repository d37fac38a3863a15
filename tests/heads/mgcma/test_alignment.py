"""The modules of MGCMA against its equations, computed here with Python floats."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads import HeadError
from mser.heads.mgcma.alignment import (
    DistributionAlignment,
    InstanceAlignment,
    TokenAlignment,
    TokenBlock,
    instance_loss,
)
from mser.heads.mgcma.gaussian import (
    Gaussian,
    GaussianConstructor,
    distribution_loss,
    similarity,
    utterance_gaussian,
    wasserstein2,
)
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_layers import (
    Vector,
    add,
    assert_dropout,
    attend,
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
present_lists = st.lists(st.booleans(), min_size=1, max_size=6)

Sequences = dict[str, list[Vector]]

WIDTH, HEADS = 4, 2
LENGTHS = {"speech": [5, 3], "text": [2, 4], "vision": [3, 1]}


def gaussians(seed: int, n: int, width: int = 3) -> Gaussian:
    return Gaussian(double(seed, n, width), double(seed + 1, n, width).exp())


def slow_block(block: TokenBlock, tokens: Sequences, read_this_block: bool = True) -> Sequences:
    own = {m: attend(block.self_attention[m], x) for m, x in tokens.items()}  # type: ignore[arg-type]
    offered = own if read_this_block else tokens
    out = {}
    for m in tokens:
        others = [row for n in tokens if n != m for row in offered[n]]
        across = attend(block.cross_attention[m], own[m], others) if others else own[m]  # type: ignore[arg-type]
        out[m] = [feed_forward(block.feed_forward[m], x) for x in across]  # type: ignore[arg-type]
    return out


def distance(a: Gaussian, i: int, b: Gaussian, j: int) -> float:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += sum((float(p) - float(q)) ** 2 for p, q in zip(x[i], y[j], strict=True))
    return total


def slow_info_nce(score: Callable[[int, int], float], kept: Sequence[int]) -> float:
    """Return the mean of both directions; score(i, j) includes the temperature."""
    loss = 0.0
    for i in kept:
        for others in ([score(i, j) for j in kept], [score(j, i) for j in kept]):
            top = max(others)  # the probability of a distant pair can underflow
            total = sum(math.exp(other - top) for other in others)
            loss -= (score(i, i) - top - math.log(total)) / (2 * len(kept))
    return loss


def batch(modalities: Sequence[str], seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    masks = {m: length_mask(torch.tensor(LENGTHS[m]), 6) for m in modalities}
    return {m: double(seed + i, 2, 6, WIDTH) for i, m in enumerate(modalities)}, masks


def valid(tokens: dict[str, Tensor], i: int) -> Sequences:
    """Return the sequences of one utterance without their padding."""
    return {m: x[i, : LENGTHS[m][i]].tolist() for m, x in tokens.items()}


# Eqs. 1–3, the constructor.


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_the_constructor_follows_its_equations(seed: int) -> None:
    build = randomised(GaussianConstructor(WIDTH, HEADS, 0.1)).eval()
    x, mask = double(seed, 2, 6, WIDTH), length_mask(torch.tensor([6, 3]), 6)
    mean, log_deviation = build(x, mask)
    for i, n in enumerate([6, 3]):
        rows = x[i, :n].tolist()
        embedded = [norm(build.embed[2], gelu(linear(build.embed[0], row))) for row in rows]
        heads = attended_heads(build.attention, embedded, embedded)
        for t, (row, h) in enumerate(zip(rows, heads, strict=True)):
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
        embedded = [norm(build.embed[2], gelu(linear(build.embed[0], row))) for row in rows]
        half = slice(WIDTH // 2) if is_mean else slice(WIDTH // 2, WIDTH)
        heads = attended_heads(build.attention, embedded, embedded)
        layer = build.mean if is_mean else build.log_deviation
        expected = [linear(layer, row[half]) for row in heads]
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


# Eqs. 6–8 and 9–11, the two losses.


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


@given(seeds, present_lists, st.floats(0.05, 2))
@quick
def test_the_instance_loss_follows_its_formula(seed: int, present: list[bool], tau: float) -> None:
    a, b = double(seed, len(present), 3), double(seed + 1, len(present), 3)

    def score(i: int, j: int) -> float:
        x: Vector = a[i].tolist()
        y: Vector = b[j].tolist()
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        return dot / math.hypot(*x) / math.hypot(*y) / tau

    slow = slow_info_nce(score, [i for i, is_present in enumerate(present) if is_present])
    fast = instance_loss(a, b, tau, torch.tensor(present))
    assert float(fast) == pytest.approx(slow, abs=1e-9)


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


def test_the_gradients_of_the_constructor_are_its_derivatives() -> None:
    build = randomised(GaussianConstructor(WIDTH, HEADS, 0.0))
    mask = length_mask(torch.tensor([3, 2]), 3)

    def run(x: Tensor) -> Gaussian:
        mean, log_deviation = build(x, mask)
        return utterance_gaussian(mean, log_deviation, mask)

    assert torch.autograd.gradcheck(run, [double(0, 2, 3, WIDTH).requires_grad_()])


# TAM.


@pytest.mark.parametrize("modalities", [["speech"], ["speech", "text"], list(LENGTHS)])
def test_token_blocks_follow_their_equations(modalities: list[str]) -> None:
    align = randomised(TokenAlignment(modalities, WIDTH, HEADS, 2, 0.1)).eval()
    tokens, masks = batch(modalities)
    passed, loss = align(tokens, masks)
    assert loss is None
    for i in range(2):
        slow = valid(tokens, i)
        for block in align.blocks:
            slow = slow_block(block, slow)
        for m, rows in slow.items():
            fast = passed[m][i, : LENGTHS[m][i]]
            torch.testing.assert_close(fast, torch.tensor(rows, dtype=torch.float64))


def test_cross_attention_reads_the_self_attention_of_this_block() -> None:
    block = randomised(TokenBlock(["speech", "text"], WIDTH, HEADS, 0.0))
    tokens, masks = batch(["speech", "text"])
    fast = valid(block(tokens, masks), 0)
    expected, other = (slow_block(block, valid(tokens, 0), read) for read in (True, False))
    for m in tokens:
        torch.testing.assert_close(torch.tensor(fast[m]), torch.tensor(expected[m]))
        assert not torch.allclose(torch.tensor(fast[m]), torch.tensor(other[m]), atol=0.01)


def test_the_gradients_of_the_token_block_are_its_derivatives() -> None:
    block = randomised(TokenBlock(["speech", "text"], WIDTH, HEADS, 0.0))
    masks = {
        "speech": length_mask(torch.tensor([3, 2]), 3),
        "text": length_mask(torch.tensor([0, 2]), 2),
    }
    names = [name for name, _ in block.named_parameters()]

    def run(speech: Tensor, text: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, parameters, strict=True))
        tokens = {"speech": speech, "text": text}
        out = torch.func.functional_call(block, state, (tokens, masks))
        return out["speech"], out["text"]

    sequences = [double(1, 2, 3, WIDTH).requires_grad_(), double(2, 2, 2, WIDTH).requires_grad_()]
    fixed = [p.detach() for p in block.parameters()]
    assert torch.autograd.gradcheck(lambda *x: run(*x, *fixed), sequences)
    free = [p.clone().requires_grad_() for p in fixed]
    assert torch.autograd.gradcheck(run, [*sequences, *free], fast_mode=True)


# The interface of the modules.


def test_distribution_returns_the_means_and_averages_its_loss_over_pairs() -> None:
    tokens, masks = batch(list(LENGTHS))
    align = randomised(DistributionAlignment(LENGTHS, WIDTH, HEADS, 0.0, 0.5, 0.1))
    passed, loss = align(tokens, masks)
    built = {m: align.constructors[m](x, masks[m]) for m, x in tokens.items()}
    assert all(torch.equal(passed[m], mean) for m, (mean, _) in built.items())
    s, t, v = (utterance_gaussian(mean, log, masks[m]) for m, (mean, log) in built.items())
    pairs = [distribution_loss(a, b, 0.5, 0.1) for a, b in [(s, t), (s, v), (t, v)]]
    torch.testing.assert_close(loss, sum(pairs) / 3)


def test_instance_returns_its_input_and_averages_its_loss_over_pairs() -> None:
    tokens, masks = batch(list(LENGTHS))
    passed, loss = InstanceAlignment(0.5)(tokens, masks)
    assert all(passed[m] is x for m, x in tokens.items())
    pooled = {
        m: torch.stack([x[i, :n].mean(dim=0) for i, n in enumerate(LENGTHS[m])])
        for m, x in tokens.items()
    }
    s, t, v = pooled.values()
    pairs = [instance_loss(a, b, 0.5) for a, b in [(s, t), (s, v), (t, v)]]
    torch.testing.assert_close(loss, sum(pairs) / 3)


def test_one_modality_has_no_alignment_loss() -> None:
    tokens, masks = batch(["speech"])
    distribution = randomised(DistributionAlignment(tokens, WIDTH, HEADS, 0.0, 0.5, 0.1))
    for align in (distribution, InstanceAlignment(0.5)):
        assert align(tokens, masks)[1] is None


def test_utterances_without_a_modality_are_not_pairs() -> None:
    tokens, masks = {}, {}
    for i, (m, lengths) in enumerate({"speech": [3, 0, 2, 4], "text": [2, 2, 3, 0]}.items()):
        tokens[m], masks[m] = double(i, 4, 4, WIDTH), length_mask(torch.tensor(lengths), 4)
    both = [0, 2]
    distribution = randomised(DistributionAlignment(tokens, WIDTH, HEADS, 0.0, 0.5, 0.1))
    for align in (distribution, InstanceAlignment(0.5)):
        loss = align(tokens, masks)[1]
        subset = [{m: x[both] for m, x in given.items()} for given in (tokens, masks)]
        assert loss is not None
        assert loss.item() > 0
        torch.testing.assert_close(loss, align(*subset)[1])
