"""The modules of ``hbaf`` against their equations, computed here with loops."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mser.heads.dialogues import Dialogues
from mser.heads.hbaf.audio_context import AudioContextNetwork
from mser.heads.hbaf.bimodal_attention import BimodalAttention, DynamicGate
from mser.heads.hbaf.turn_context import BiGRU, TurnContext, by_dialogue, by_utterance
from mser.heads.modules.contrastive import relation_distance
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_layers import double, randomised

NAMES = ["speech", "text", "vision"]
seeds = st.integers(0, 2**31)


def dot(a: Tensor, b: Tensor) -> float:
    return math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def times(weight: Tensor, x: Tensor) -> Tensor:
    return torch.tensor([dot(row, x) for row in weight], dtype=torch.float64)


def norm(layer: nn.LayerNorm, x: Tensor) -> Any:
    mean = sum(x.tolist()) / len(x)
    variance = sum((v - mean) ** 2 for v in x.tolist()) / len(x)
    return (x - mean) / math.sqrt(variance + layer.eps) * layer.weight + layer.bias


def close(fast: Tensor, slow: Tensor) -> None:
    torch.testing.assert_close(fast.detach(), slow.detach(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bimodal_attention_follows_its_equations(count: int) -> None:
    names, d, sizes = NAMES[:count], 4, [4, 2]
    attention = randomised(BimodalAttention(names, d))
    x = {m: double(20 + i, 2, 4, d) for i, m in enumerate(names)}
    masks = {m: length_mask(torch.tensor(sizes), 4) for m in names}
    masks[names[-1]] = torch.tensor(
        [[True, False, True, True], [count == 1, count == 1, False, False]]
    )
    h = attention(x, masks)

    def slow_attend(m: str, n: str, g: int, t: int) -> Tensor:
        query = times(attention.projections[m].weight[:d], x[m][g, t])
        total, out = 0.0, torch.zeros(d, dtype=torch.float64)
        for s in range(4):
            if masks[n][g, s]:
                key = times(attention.projections[n].weight[d : 2 * d], x[n][g, s])
                score = math.exp(dot(query, key) / math.sqrt(d))
                out = out + score * times(attention.projections[n].weight[2 * d :], x[n][g, s])
                total += score
        return out / (total or 1)

    for g, size in enumerate(sizes):
        for t in range(size):
            for m in names:
                intra = slow = slow_attend(m, m, g, t)
                for n in names:
                    if n != m:
                        inter = slow_attend(m, n, g, t)
                        w = attention.signs[m].weight[0]
                        slow = slow + math.tanh(dot(w, torch.cat([intra, inter]))) * inter
                close(h[m][g, t], slow)


def test_a_negative_lambda_subtracts_the_other_modality() -> None:
    attention = randomised(BimodalAttention(["speech", "text"], 4))
    x = {"speech": double(1, 1, 1, 4), "text": double(2, 1, 1, 4)}
    masks = dict.fromkeys(x, torch.ones(1, 1, dtype=torch.bool))
    intra, inter = (attention.projections[m](x[m]).chunk(3, dim=2)[2] for m in ("speech", "text"))
    both = torch.cat([intra, inter], dim=2)
    for sign in (-1, 1):
        attention.signs["speech"].weight.data = sign * 100 * both[0]
        close(attention(x, masks)["speech"], intra + sign * inter)


def test_the_gate_follows_its_equation() -> None:
    gate = randomised(DynamicGate(4))
    x, h = double(20, 1, 3, 4), double(21, 1, 3, 4)
    for t, row in enumerate(gate(x, h)[0]):
        z = times(gate.gate.weight, torch.cat([h[0, t], x[0, t]])) + gate.gate.bias
        g = torch.tensor([1 / (1 + math.exp(-v)) for v in z.tolist()], dtype=torch.float64)
        close(row, norm(gate.norm, x[0, t] + g * h[0, t]))


def slow_gru(gru: nn.GRU, x: Tensor, suffix: str) -> list[Tensor]:
    w_i, w_h, b_i, b_h = (
        getattr(gru, f"{name}_l0{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, out = torch.zeros(gru.hidden_size, dtype=torch.float64), []
    for row in x:
        r_i, z_i, n_i = (times(w_i, row) + b_i).chunk(3)
        r_h, z_h, n_h = (times(w_h, h) + b_h).chunk(3)
        r, z = 1 / (1 + (-r_i - r_h).exp()), 1 / (1 + (-z_i - z_h).exp())
        h = (1 - z) * (n_i + r * n_h).tanh() + z * h
        out.append(h)
    return out


def slow_bigru(layer: BiGRU, x: Tensor) -> Tensor:
    forwards = slow_gru(layer.gru, x, "")
    backwards = slow_gru(layer.gru, x.flip(0), "_reverse")[::-1]
    return torch.stack([torch.cat(pair) for pair in zip(forwards, backwards, strict=True)])


def test_the_recurrent_network_follows_its_equations_and_reads_no_padding() -> None:
    layer = randomised(BiGRU(4))
    lengths = [3, 0, 5, 1]
    x = double(20, 4, 6, 4)
    x[~length_mask(torch.tensor(lengths), 6)] = math.nan
    x[1, 0] = 3.0  # in the sequence of length 0
    out = layer(x, torch.tensor(lengths))
    for i, n in enumerate(lengths):
        assert not out[i, n:].any()
        if n:
            close(out[i, :n], slow_bigru(layer, x[i, :n]))


def talk(sizes: list[int], speakers: list[int] | None = None) -> Dialogues:
    sized = torch.tensor(sizes)
    return Dialogues(
        torch.arange(len(sizes)).repeat_interleave(sized),
        sized.repeat_interleave(sized),
        None if speakers is None else torch.tensor(speakers),
    )


def slow_context(
    network: Any, x: list[Tensor], sizes: list[int], speakers: list[int]
) -> list[Tensor]:
    """Compute c_i = LN(x_i + BiGRU_dialogue(x)_i + BiGRU_speaker(x of the speaker of i)_i)."""
    start, context = 0, list[Tensor]()
    for size in sizes:
        turns = range(start, start + size)
        over_dialogue = slow_bigru(network.dialogue, torch.stack([x[i] for i in turns]))
        for i, row in zip(turns, over_dialogue, strict=True):
            # An unknown speaker has no other turn.
            same = [j for j in turns if j == i or speakers[j] == speakers[i] != -1]
            of_speaker = slow_bigru(network.speaker, torch.stack([x[j] for j in same]))
            context.append(norm(network.norm, x[i] + row + of_speaker[same.index(i)]))
        start += size
    return context


TALKS = [
    ([5], [0, 1, 0, 0, 1]),
    ([3, 1, 2], [4, 2, 4, 4, 0, 0]),  # the same number in another dialogue is another speaker
    ([4], [-1, 3, -1, 3]),
    ([2, 2], [-1, -1, -1, -1]),
]


@pytest.mark.parametrize(("sizes", "speakers"), TALKS)
def test_the_context_of_a_turn_follows_its_equation(sizes: list[int], speakers: list[int]) -> None:
    network = randomised(TurnContext(4, speakers=True))
    x = double(20, sum(sizes), 4)
    fast = network(x, talk(sizes, speakers))
    close(fast, torch.stack(slow_context(network, list(x), sizes, speakers)))
    # Other numbers for the same speakers change nothing.
    renamed = [n if n == -1 else 7 * (5 - n) + 1 for n in speakers]
    close(network(x, talk(sizes, renamed)), fast)
    if set(speakers) == {-1}:
        close(network(x, talk(sizes)), fast)


def test_another_speaker_of_a_turn_is_another_context() -> None:
    network = randomised(TurnContext(4, speakers=True))
    x = double(20, 4, 4)
    first = network(x, talk([4], [0, 1, 0, 1]))
    moved = (network(x, talk([4], [0, 1, 0, 0])) - first).abs().amax(dim=1) > 1e-9
    assert moved.tolist() == [True] * 4
    without = randomised(TurnContext(4, speakers=False))
    assert without.speaker is None
    close(without(x, talk([4], [0, 1, 0, 0])), without(x, talk([4], [0, 1, 0, 1])))


def test_the_audio_context_network_follows_its_equations() -> None:
    network = randomised(AudioContextNetwork(4, speakers=True))
    lengths, sizes, speakers = [3, 0, 2, 1], [3, 1], [0, 1, 0, 0]
    frames, mask = double(20, 4, 3, 4), length_mask(torch.tensor(lengths), 3)
    context = network(frames, mask, torch.tensor(lengths), talk(sizes, speakers))
    x = []
    for i, n in enumerate(lengths):
        if n == 0:
            x.append(torch.zeros(4, dtype=torch.float64))
            continue
        z = slow_bigru(network.frames, frames[i, :n])
        scores = [network.pooling.scores(row).item() for row in z.detach()]
        weights = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
        x.append(sum(w * row for w, row in zip(weights, z, strict=True)))
    close(context, torch.stack(slow_context(network, x, sizes, speakers)))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), seeds)
@settings(max_examples=25, deadline=None)
def test_utterances_to_dialogues_and_back(sizes: list[int], seed: int) -> None:
    x = double(seed, sum(sizes), 2)
    padded = by_dialogue(x, sizes)
    assert padded.shape == (len(sizes), max(sizes), 2)
    assert torch.equal(by_utterance(padded, sizes), x)
    assert torch.equal(padded.abs().sum(dim=2) > 0, length_mask(torch.tensor(sizes), max(sizes)))


@given(seeds, st.lists(st.booleans(), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_the_relation_distance_follows_its_formula(seed: int, present: list[bool]) -> None:
    n = len(present)
    a, b = double(seed, n, 4), double(seed + 1, n, 3)

    def cosine(x: Tensor, y: Tensor) -> float:
        return dot(x, y) / math.sqrt(dot(x, x) * dot(y, y))

    kept = [i for i in range(n) if present[i]]
    slow = sum((cosine(a[i], a[j]) - cosine(b[i], b[j])) ** 2 for i in kept for j in kept)
    fast = relation_distance(a, b, torch.tensor(present))
    assert math.isclose(float(fast), slow / max(len(kept), 1) ** 2, rel_tol=1e-9, abs_tol=1e-12)
    if all(present):
        assert torch.equal(relation_distance(a, b), fast)
    # A rotation and a scale do not change the cosines.
    rotation = torch.linalg.qr(double(seed + 2, 4, 4))[0]
    torch.testing.assert_close(relation_distance(a, 5 * a @ rotation), torch.zeros_like(fast))


def test_the_gradients_of_the_modules_are_their_derivatives() -> None:
    masks = {
        "speech": torch.tensor([[True, True, False]]),
        "text": torch.tensor([[True, False, True]]),
    }
    attention, gate = randomised(BimodalAttention(masks, 2)), randomised(DynamicGate(2))
    network = randomised(AudioContextNetwork(2, speakers=True))

    def bimodal(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(attention({"speech": x, "text": y}, masks).values())

    def context(x: Tensor) -> Any:
        n = torch.tensor([3, 0, 2])
        return network(x, length_mask(n, 3), n, talk([2, 1], [0, 0, 0]))

    x, y = double(1, 1, 3, 2).requires_grad_(), double(2, 1, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(bimodal, (x, y))
    assert torch.autograd.gradcheck(gate, (x, y))
    assert torch.autograd.gradcheck(context, (double(3, 3, 3, 2).requires_grad_(),))
    rows = double(4, 4, 3).requires_grad_(), double(5, 4, 3).requires_grad_()
    present = torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(lambda a, b: relation_distance(a, b, present), rows)
