"""The modules of MGCMA: token alignment against its equations, and their common interface."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mser.heads.mgcma.alignment import (
    DistributionAlignment,
    InstanceAlignment,
    TokenAlignment,
    TokenBlock,
    instance_loss,
)
from mser.heads.mgcma.gaussian import distribution_loss, utterance_gaussian
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_layers import (
    Vector,
    attend,
    double,
    feed_forward,
    norm,
    randomised,
)

Sequences = dict[str, list[Vector]]

WIDTH, HEADS = 4, 2
LENGTHS = {"speech": [5, 3], "text": [2, 4], "vision": [3, 1]}


def slow_block(block: TokenBlock, tokens: Sequences, read_this_block: bool = True) -> Sequences:
    own = {m: attend(block.self_attention[m], x) for m, x in tokens.items()}  # type: ignore[arg-type]
    offered = own if read_this_block else tokens
    out = {}
    for m in tokens:
        others = [row for n in tokens if n != m for row in offered[n]]
        across = attend(block.cross_attention[m], own[m], others) if others else own[m]  # type: ignore[arg-type]
        out[m] = [feed_forward(block.feed_forward[m], x) for x in across]  # type: ignore[arg-type]
    return out


def batch(modalities: Sequence[str], seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    masks = {m: length_mask(torch.tensor(LENGTHS[m]), 6) for m in modalities}
    return {m: double(seed + i, 2, 6, WIDTH) for i, m in enumerate(modalities)}, masks


def valid(tokens: dict[str, Tensor], i: int) -> Sequences:
    """Return the sequences of one utterance without their padding."""
    return {m: x[i, : LENGTHS[m][i]].tolist() for m, x in tokens.items()}


# TAM.


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("modalities", [["speech"], ["speech", "text"], list(LENGTHS)])
def test_token_blocks_follow_their_equations(modalities: list[str], final_norm: bool) -> None:
    module = TokenAlignment(modalities, WIDTH, HEADS, 2, 0.1, final_norm=final_norm)
    align = randomised(module).eval()
    assert set(align.final_norms) == set(modalities if final_norm else [])
    tokens, masks = batch(modalities)
    passed, loss = align(tokens, masks)
    assert loss is None
    for i in range(2):
        slow = valid(tokens, i)
        for block in align.blocks:
            slow = slow_block(block, slow)
        for m, rows in slow.items():
            last = [norm(align.final_norms[m], row) for row in rows] if final_norm else rows
            fast = passed[m][i, : LENGTHS[m][i]]
            torch.testing.assert_close(fast, torch.tensor(last, dtype=torch.float64))


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


@pytest.mark.parametrize("returns", ["mean", "input"])
def test_distribution_returns_the_means_or_its_input_and_averages_its_loss_over_pairs(
    returns: str,
) -> None:
    tokens, masks = batch(list(LENGTHS))
    align = randomised(DistributionAlignment(LENGTHS, WIDTH, HEADS, 0.0, 0.5, 0.1, returns=returns))
    passed, loss = align(tokens, masks)
    built = {m: align.constructors[m](x, masks[m]) for m, x in tokens.items()}
    expected = {m: mean for m, (mean, _) in built.items()} if returns == "mean" else tokens
    assert all(torch.equal(passed[m], x) for m, x in expected.items())
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
