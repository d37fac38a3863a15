"""``query``: the decoder of emotion queries, random modality masking, and the head of both."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mser.heads import Head, HeadError, build_head
from mser.heads.modules.masks import length_mask
from mser.heads.modules.modality_masking import ModalityMasking
from mser.heads.query.decoder import EmotionQueries, QueryLayer
from mser.heads.query.head import UniModalEncoder

DIMS = {"speech": 6, "text": 5, "vision": 4}


def double(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(layer: nn.LayerNorm, row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + layer.eps)
    gain, bias = layer.weight.tolist(), layer.bias.tolist()
    return [g * (v - mean) / deviation + b for v, g, b in zip(row, gain, bias, strict=True)]


def linear(layer: nn.Linear, row: list[float]) -> list[float]:
    pairs = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(ws, row, strict=True)) + b for ws, b in pairs]


def add(a: list[float], b: list[float]) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


def attend(attention, queries: list[list[float]], memory: list[list[float]]) -> list[list[float]]:
    """Multi-head attention of rows to rows, one number after the other."""
    width = len(queries[0])
    size = width // attention.n_heads
    keys_values = [linear(attention.key_value, row) for row in memory]
    out = []
    for row in queries:
        query, joined = linear(attention.query, row), []
        for head in range(attention.n_heads):
            part = range(head * size, (head + 1) * size)
            scores = [sum(query[d] * kv[d] for d in part) / math.sqrt(size) for kv in keys_values]
            weights = [math.exp(s) for s in scores]
            joined += [
                sum(w * kv[width + d] for w, kv in zip(weights, keys_values, strict=True))
                / sum(weights)
                for d in part
            ]
        out.append(linear(attention.out, joined))
    return out


def feed_forward(step, row: list[float]) -> list[float]:
    first, _, second = step.layers
    hidden = linear(first, norm(step.norm, row))
    return add(row, linear(second, [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in hidden]))


def slow_query_layer(
    layer: QueryLayer, queries: list[list[float]], memory: list[list[float]]
) -> list[list[float]]:
    step = layer.among_queries
    normed = [norm(step.norm, row) for row in queries]
    heard = attend(step.attention, normed, normed)
    queries = [add(*pair) for pair in zip(queries, heard, strict=True)]
    step = layer.to_memory
    assert step.memory_norm is not None
    there = [norm(step.memory_norm, row) for row in memory]
    heard = attend(step.attention, [norm(step.norm, row) for row in queries], there)
    queries = [add(*pair) for pair in zip(queries, heard, strict=True)]
    return [feed_forward(layer.feed_forward, row) for row in queries]


def shaken(module: nn.Module) -> Any:
    """Give every parameter a random value, so that no gain of 1 or bias of 0 hides a mistake."""
    for at, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * double(at, *parameter.shape)
    return module


def test_the_decoder_is_its_formula() -> None:
    decoder = shaken(EmotionQueries(3, 4, 2, 2, 0.0))
    memory, mask = double(50, 2, 5, 4), length_mask(torch.tensor([5, 2]), 5)
    gathered = decoder(memory, mask)
    for i, n in enumerate([5, 2]):
        slow = decoder.queries.tolist()
        for layer in decoder.layers:
            slow = slow_query_layer(layer, slow, memory[i, :n].tolist())
        torch.testing.assert_close(gathered[i], torch.tensor(slow, dtype=torch.float64))


def test_the_encoder_is_its_formula() -> None:
    encoder = shaken(UniModalEncoder(4, 2, 2, 0.0))
    x, mask = double(50, 2, 5, 4), length_mask(torch.tensor([5, 2]), 5)
    refined = encoder(x, mask)
    for i, n in enumerate([5, 2]):
        rows = [add(row, encoder.embedding.tolist()) for row in x[i, :n].tolist()]
        for block in encoder.blocks:
            normed = [norm(block.attend.norm, row) for row in rows]
            heard = attend(block.attend.attention, normed, normed)
            rows = [add(*pair) for pair in zip(rows, heard, strict=True)]
            rows = [feed_forward(block.feed_forward, row) for row in rows]
        torch.testing.assert_close(refined[i, :n], torch.tensor(rows, dtype=torch.float64))


def test_gradients_of_the_decoder() -> None:
    decoder = shaken(EmotionQueries(2, 4, 2, 1, 0.0))
    mask = length_mask(torch.tensor([3, 1]), 3)
    names = [name for name, _ in decoder.named_parameters()]

    def run(memory: Tensor, *parameters: Tensor) -> Any:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(decoder, state, (memory, mask))

    inputs = [double(60, 2, 3, 4), *(p.detach() for p in decoder.parameters())]
    assert torch.autograd.gradcheck(
        run, [x.clone().requires_grad_() for x in inputs], fast_mode=True
    )


def test_the_queries_of_an_untrained_decoder_differ() -> None:
    torch.manual_seed(0)
    decoder = EmotionQueries(4, 8, 2, 2, 0.0)
    gathered = decoder(torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool))[0].detach()
    assert min(float((a - b).norm()) for a, b in pairwise(gathered)) > 1e-3


# --- random modality masking ------------------------------------------------------------------


def lengths_to_masks(rows: list[tuple[int, ...]]) -> dict[str, Tensor]:
    columns = zip(*rows, strict=True)
    return {m: length_mask(torch.tensor(n), 4) for m, n in zip(DIMS, columns, strict=False)}


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("count", [2, 3])
def test_each_modality_is_hidden_at_its_rate(rate: float, count: int) -> None:
    n = 20_000
    torch.manual_seed(0)
    masks = ModalityMasking(rate)(lengths_to_masks([(2,) * count] * n))
    hidden = torch.stack([~mask.any(dim=1) for mask in masks.values()])
    deviation = math.sqrt(rate * (1 - rate) / n) + math.sqrt(rate / n)
    assert int(hidden.sum(dim=0).max()) <= 1
    assert abs(float(hidden.any(dim=0).float().mean()) - rate) <= 4 * deviation
    for share in hidden.float().mean(dim=1):
        assert abs(float(share) - rate / count) <= 4 * deviation


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3).filter(any), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_the_last_modality_is_never_hidden(rows: list[tuple[int, ...]]) -> None:
    before = lengths_to_masks(rows)
    after = ModalityMasking(1.0)(before)
    had = torch.stack([mask.any(dim=1) for mask in before.values()]).sum(dim=0)
    has = torch.stack([mask.any(dim=1) for mask in after.values()]).sum(dim=0)
    assert bool((has >= 1).all())
    assert bool((has >= had - 1).all())
    assert has[had == 1].tolist() == [1] * int((had == 1).sum())
    for m, mask in after.items():  # whole or hidden, never a part
        kept = mask.any(dim=1)
        assert torch.equal(mask, before[m] & kept.unsqueeze(1))


def test_nothing_is_hidden_in_evaluation_nor_of_one_modality() -> None:
    masks = lengths_to_masks([(2, 3, 4)] * 50)
    kept = ModalityMasking(1.0).eval()(masks)
    assert all(torch.equal(kept[m], masks[m]) for m in DIMS)
    alone = ModalityMasking(1.0)({"text": masks["text"]})
    assert torch.equal(alone["text"], masks["text"])


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf])
def test_a_rate_that_cannot_be(rate: float) -> None:
    with pytest.raises(HeadError, match="rate of modality masking"):
        ModalityMasking(rate)


# --- the head ---------------------------------------------------------------------------------


def small(count: int = 2, **options: Any) -> Head:
    torch.manual_seed(0)
    dims = dict(list(DIMS.items())[:count])
    return build_head("query", dims, 3, width=8, n_attention_heads=2, dropout=0.0, **options)


def batch(n: int, count: int = 2) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    features = {m: double(i, n, 4, d).float() for i, (m, d) in enumerate(DIMS.items()) if i < count}
    return features, dict.fromkeys(features, torch.full((n,), 4))


def test_the_published_sizes() -> None:
    head = build_head("query", {"speech": 768, "text": 768}, 4, {"speech": 13, "text": 13})
    assert head.layers == {"speech": tuple(range(13)), "text": tuple(range(13))}
    assert isinstance(head.queries, EmotionQueries)
    assert head.queries.queries.shape == (4, 256)
    assert len(head.queries.layers) == 2
    for encoder in head.encoders.values():  # type: ignore[operator]
        assert len(encoder.blocks) == 2
        assert encoder.blocks[0].attend.attention.n_heads == 4
        assert encoder.blocks[0].feed_forward.layers[0].out_features == 1024


def test_a_hidden_modality_gets_no_gradient_and_is_as_if_it_were_not_there() -> None:
    head = small(masking=1.0)
    features, lengths = batch(12)
    features = {m: x.requires_grad_() for m, x in features.items()}
    logits = head(features, lengths).logits
    logits.square().sum().backward()
    met = {m: x.grad.abs().amax(dim=(1, 2)) > 0 for m, x in features.items() if x.grad is not None}
    assert (met["speech"] ^ met["text"]).all()  # one of both is always hidden
    assert met["speech"].any()
    assert met["text"].any()
    missing = {m: torch.where(met[m], 4, 0) for m in features}
    torch.testing.assert_close(head.eval()(features, missing).logits, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("missing", ["speech", "text"])
def test_an_absent_modality_is_not_read(missing: str) -> None:
    head = small(3).eval()
    features, lengths = batch(5, 3)
    lengths[missing] = torch.tensor([4, 0, 4, 0, 0])
    together = head(features, lengths).logits
    features[missing] = torch.where(
        lengths[missing][:, None, None] > 0, features[missing], torch.nan
    )
    torch.testing.assert_close(head(features, lengths).logits, together, atol=0, rtol=0)
    for i in range(5):
        alone = head(
            {m: x[i : i + 1] for m, x in features.items()},
            {m: n[i : i + 1] for m, n in lengths.items()},
        )
        torch.testing.assert_close(alone.logits, together[i : i + 1], atol=1e-5, rtol=0)


def test_masking_only_acts_in_training() -> None:
    features, lengths = batch(8)
    head = small(masking=1.0)
    assert not torch.equal(head(features, lengths).logits, head.eval()(features, lengths).logits)
    assert torch.equal(head(features, lengths).logits, head(features, lengths).logits)
    assert torch.equal(head(features, lengths).logits, small(masking=0.0)(features, lengths).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masking": 2.0}, "masking must be in"),
        ({"n_queries": 0}, "n_queries must be at least 1"),
        ({"n_decoder_layers": 0}, "n_decoder_layers must be at least 1"),
        ({"n_encoder_layers": -1}, "n_encoder_layers must not be negative"),
        ({"width": 10, "n_attention_heads": 4}, "width 10 cannot be divided"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"masking": "often"}, "query option 'masking' must be of type float"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        build_head("query", DIMS, 3, **options)
