"""The shared modules against their formulas, computed here with Python floats."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads import HeadError
from mser.heads.modules.bottleneck_block import BottleneckBlock
from mser.heads.modules.contrastive import info_nce, matching_loss, supervised_contrastive
from mser.heads.modules.layer_mix import LayerMix
from mser.heads.modules.masks import length_mask
from mser.heads.modules.pooling import masked_mean
from mser.tests.support.slow_layers import double, pre_norm_block, randomised

seeds = st.integers(0, 2**31)
quick = settings(max_examples=25, deadline=None)


def cosine(x: Tensor, y: Tensor) -> float:
    dot, xx, yy = (sum(p * q for p, q in zip(*v, strict=True)) for v in [(x, y), (x, x), (y, y)])
    return float(dot) / math.sqrt(float(xx) * float(yy))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 3))
@quick
def test_the_mask_and_the_mean_follow_the_lengths(lengths: list[int], extra: int) -> None:
    size = max(lengths) + extra
    mask = length_mask(torch.tensor(lengths), size)
    x = double(1, len(lengths), size, 3)
    x[~mask] = math.nan
    mean = masked_mean(x, mask)
    for i, n in enumerate(lengths):
        assert mask[i].tolist() == [t < n for t in range(size)]
        for d in range(3):
            slow = sum(float(x[i, t, d]) for t in range(n)) / n
            assert math.isclose(float(mean[i, d]), slow, abs_tol=1e-12)


def test_the_mean_has_finite_gradients_with_nan_in_the_padding() -> None:
    x = torch.tensor([[[1.0], [math.nan]]], requires_grad=True)
    masked_mean(x, torch.tensor([[True, False]])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.0]


def test_the_mean_over_no_position_is_zero() -> None:
    assert masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [
        [0.0] * 3
    ]


@given(seeds, st.integers(1, 6), st.floats(0.05, 2))
@quick
def test_info_nce_follows_its_formula(seed: int, n: int, tau: float) -> None:
    a, b = double(seed, n, 4), double(seed + 1, n, 4)
    slow = 0.0
    for x, y in [(a, b), (b, a)]:
        for i in range(n):
            scores = [math.exp(cosine(x[i], y[j]) / tau) for j in range(n)]
            slow -= math.log(scores[i] / sum(scores)) / (2 * n)
    assert math.isclose(float(info_nce(a, b, tau)), slow, rel_tol=1e-9, abs_tol=1e-9)


@given(seeds, st.lists(st.integers(0, 2), min_size=1, max_size=5), st.floats(0.05, 2))
@quick
def test_supervised_contrastive_follows_its_formula(
    seed: int, labels: list[int], tau: float
) -> None:
    n = len(labels)
    a, b = double(seed, n, 4), double(seed + 1, n, 4)
    views, classes = [*a, *b], labels * 2
    slow = 0.0
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        total = sum(math.exp(cosine(views[i], views[j]) / tau) for j in others)
        positives = [j for j in others if classes[j] == classes[i]]
        for p in positives:
            ratio = math.exp(cosine(views[i], views[p]) / tau) / total
            slow -= math.log(ratio) / len(positives) / (2 * n)
    fast = supervised_contrastive(a, b, torch.tensor(labels), tau)
    assert math.isclose(float(fast), slow, rel_tol=1e-9, abs_tol=1e-9)


@given(seeds, st.floats(0.1, 100))
@quick
def test_info_nce_depends_on_directions_and_not_on_the_order(seed: int, scale: float) -> None:
    a, b = double(seed, 5, 4), double(seed + 1, 5, 4)
    loss = info_nce(a, b, 0.1)
    shuffled = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(info_nce(scale * a, b, 0.1), loss)
    torch.testing.assert_close(info_nce(b, a, 0.1), loss)
    torch.testing.assert_close(info_nce(a[shuffled], b[shuffled], 0.1), loss)


def test_a_batch_of_one_has_no_negatives() -> None:
    for loss in (
        lambda a, b: info_nce(a, b, 0.07),
        lambda a, b: supervised_contrastive(a, b, torch.tensor([2]), 0.07),
    ):
        a, b = double(0, 1, 4).requires_grad_(), double(1, 1, 4).requires_grad_()
        value = loss(a, b)
        value.backward()
        assert value.item() == 0
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.abs().max() == b.grad.abs().max() == 0


def test_info_nce_is_computed_in_float32_under_autocast_and_for_half_inputs() -> None:
    a, b = double(0, 8, 16).float(), double(1, 8, 16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(a, b, 0.07)
    assert torch.equal(inside, info_nce(a, b, 0.07))
    assert info_nce(a.half(), b.half(), 0.07).dtype == torch.float32


def test_the_gradients_of_the_losses_are_their_derivatives() -> None:
    a, b = double(0, 4, 3).requires_grad_(), double(1, 4, 3).requires_grad_()
    labels = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: supervised_contrastive(a, b, labels, 0.5), (a, b))
    assert torch.autograd.gradcheck(matching_loss, (double(2, 4, 4).requires_grad_(),))


@given(seeds, st.integers(2, 5))
@quick
def test_a_layer_mix_is_the_softmax_weighted_sum(seed: int, n: int) -> None:
    mix = LayerMix(n).double()
    assert mix.positions == tuple(range(n))
    assert mix.weights is not None
    mix.weights.data = double(seed, n)
    x = double(seed + 1, 2, n, 3, 4)
    exponents = [math.exp(float(w)) for w in mix.weights.detach()]
    slow = sum(e / sum(exponents) * x[:, i] for i, e in enumerate(exponents))
    torch.testing.assert_close(mix(x), slow)


@pytest.mark.parametrize(("layer", "position"), [("last", 4), (0, 0), (3, 3), (-1, 4), (-5, 0)])
def test_one_layer_is_read_without_weights(layer: str | int, position: int) -> None:
    mix = LayerMix(5, layer)
    assert mix.positions == (position,)
    assert not list(mix.parameters())
    x = double(0, 2, 1, 3, 4)
    assert torch.equal(mix(x), x[:, 0])


def test_several_layers_are_mixed() -> None:
    mix = LayerMix(5, (4, 0, -2))
    assert mix.positions == (4, 0, 3)
    x = double(0, 2, 3, 3, 4).float()
    torch.testing.assert_close(mix(x), x.mean(dim=1))


@pytest.mark.parametrize("layer", [5, -6, "first", True, 1.0, (), (0, 5), (1, 1), (4, -1)])
def test_a_wrong_layer_is_an_error(layer: object) -> None:
    with pytest.raises(HeadError, match=r"layer"):
        LayerMix(5, layer)  # type: ignore[arg-type]


def test_the_gradients_of_a_layer_mix_are_its_derivatives() -> None:
    mix = LayerMix(3).double()
    weights, x = double(0, 3).requires_grad_(), double(1, 2, 3, 2, 2).requires_grad_()
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda w, x: call(mix, {"weights": w}, (x,)), (weights, x))


def block_inputs() -> tuple[BottleneckBlock, Tensor, Tensor, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    block = BottleneckBlock(["speech", "text"], 4, 2, 0.0).double()
    masks = {
        "speech": length_mask(torch.tensor([3, 2]), 3),
        "text": length_mask(torch.tensor([1, 2]), 2),
    }
    return block, double(1, 2, 3, 4), double(2, 2, 2, 4), masks, double(3, 2, 2, 4)


def test_the_gradients_of_a_bottleneck_block_are_its_derivatives() -> None:
    block, speech, text, masks, bottlenecks = block_inputs()
    names = [name for name, _ in block.named_parameters()]

    def run(speech: Tensor, text: Tensor, b: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, parameters, strict=True))
        tokens = {"speech": speech, "text": text}
        y, b = torch.func.functional_call(block, state, (tokens, masks, b))
        return y["speech"], y["text"], b

    inputs = [speech, text, bottlenecks, *(p.detach() for p in block.parameters())]
    assert torch.autograd.gradcheck(
        run, [x.clone().requires_grad_() for x in inputs], fast_mode=True
    )
    few = [x.clone().requires_grad_() for x in inputs[:3]]
    fixed = [p.detach() for p in block.parameters()]
    assert torch.autograd.gradcheck(lambda *x: run(*x, *fixed), few)


def test_modalities_exchange_information_only_through_the_bottlenecks() -> None:
    block, speech, text, masks, b = block_inputs()
    y, b_y = block({"speech": speech, "text": text}, masks, b)
    z, b_z = block({"speech": -speech, "text": text}, masks, b)
    assert torch.equal(y["text"], z["text"])
    assert not torch.allclose(y["speech"], z["speech"])
    y_next, z_next = block(y, masks, b_y)[0], block(y, masks, b_z)[0]
    assert not torch.allclose(y_next["text"], z_next["text"])


def test_bottlenecks_are_the_same_without_updated_tokens() -> None:
    block, speech, text, masks, b = block_inputs()
    tokens = {"speech": speech, "text": text}
    nothing, alone = block(tokens, masks, b, update_tokens=False)
    assert nothing == {}
    torch.testing.assert_close(alone, block(tokens, masks, b)[1])


def test_new_bottlenecks_are_the_mean_over_the_modalities() -> None:
    block, speech, text, masks, b = block_inputs()
    each = [block({m: z}, masks, b)[1] for m, z in {"speech": speech, "text": text}.items()]
    both = block({"speech": speech, "text": text}, masks, b)[1]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_bottlenecks_are_the_mean_over_the_modalities_that_an_utterance_has() -> None:
    names, width, n = ("speech", "text", "vision"), 4, 2
    block = randomised(BottleneckBlock(names, width, 2, 0.0))
    lengths = {"speech": [3, 2, 0], "text": [0, 2, 1], "vision": [2, 1, 0]}
    tokens = {m: double(i, 3, 3, width) for i, m in enumerate(names)}
    masks = {m: length_mask(torch.tensor(lengths[m]), 3) for m in names}
    b = double(9, 3, n, width)
    with torch.no_grad():
        new_tokens, new_b = block(tokens, masks, b)
    for i in range(3):
        present = [m for m in names if lengths[m][i] > 0]
        updated = {
            m: pre_norm_block(
                block.blocks[m], [*tokens[m][i, : lengths[m][i]].tolist(), *b[i].tolist()]
            )
            for m in present
        }
        for j in range(n):
            for c in range(width):
                mean = sum(updated[m][lengths[m][i] + j][c] for m in present) / len(present)
                assert float(new_b[i, j, c]) == pytest.approx(mean, rel=1e-7, abs=1e-9)
        for m in present:
            rows = torch.tensor(updated[m][: lengths[m][i]], dtype=torch.float64)
            torch.testing.assert_close(new_tokens[m][i, : lengths[m][i]], rows)


def test_padding_does_not_reach_valid_tokens() -> None:
    block, speech, text, masks, b = block_inputs()
    other = torch.where(masks["speech"].unsqueeze(2), speech, 1e3)
    y, b_y = block({"speech": speech, "text": text}, masks, b)
    z, b_z = block({"speech": other, "text": text}, masks, b)
    torch.testing.assert_close(b_y, b_z)
    torch.testing.assert_close(y["speech"][masks["speech"]], z["speech"][masks["speech"]])
