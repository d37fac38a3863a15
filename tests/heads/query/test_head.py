"""``query``: the decoder of emotion queries, random modality masking, and the head."""

import math
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads import Head, HeadError, build_head
from mser.heads.modules.attention import PreNormBlock
from mser.heads.modules.masks import length_mask
from mser.heads.modules.modality_masking import ModalityMasking
from mser.heads.query.decoder import EmotionQueries, QueryLayer
from mser.heads.query.head import UniModalEncoder
from mser.tests.support.slow_layers import (
    Vector,
    add,
    attend,
    double,
    feed_forward,
    linear,
    mean,
    norm,
    pre_norm_block,
    randomised,
)

DIMS = {"speech": 6, "text": 5, "vision": 4}


def slow_query_layer(
    layer: QueryLayer, queries: list[Vector], memory: list[Vector]
) -> list[Vector]:
    queries = attend(layer.among_queries, queries)
    queries = attend(layer.to_memory, queries, memory)
    return [feed_forward(layer.feed_forward, row) for row in queries]


def slow_decoder(decoder: EmotionQueries, memory: list[Vector]) -> list[Vector]:
    queries: list[Vector] = decoder.queries.tolist()
    for layer in decoder.layers:
        queries = slow_query_layer(cast(QueryLayer, layer), queries, memory)
    return queries


def slow_encoder(encoder: UniModalEncoder, rows: list[Vector]) -> list[Vector]:
    rows = [add(row, encoder.embedding.tolist()) for row in rows]
    for block in encoder.blocks:
        rows = pre_norm_block(cast(PreNormBlock, block), rows)
    return rows


def test_the_decoder_follows_its_formula() -> None:
    decoder = randomised(EmotionQueries(3, 4, 2, 2, 0.0))
    memory, mask = double(50, 2, 5, 4), length_mask(torch.tensor([5, 2]), 5)
    queries = decoder(memory, mask)
    for i, n in enumerate([5, 2]):
        slow = slow_decoder(decoder, memory[i, :n].tolist())
        torch.testing.assert_close(queries[i], torch.tensor(slow, dtype=torch.float64))


def test_the_encoder_follows_its_formula() -> None:
    encoder = randomised(UniModalEncoder(4, 2, 2, 0.0))
    x, mask = double(50, 2, 5, 4), length_mask(torch.tensor([5, 2]), 5)
    refined = encoder(x, mask)
    for i, n in enumerate([5, 2]):
        rows = slow_encoder(encoder, x[i, :n].tolist())
        torch.testing.assert_close(refined[i, :n], torch.tensor(rows, dtype=torch.float64))


def test_the_gradients_of_the_decoder_are_its_derivatives() -> None:
    decoder = randomised(EmotionQueries(2, 4, 2, 1, 0.0))
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
    queries = decoder(torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool))[0].detach()
    assert min(float((a - b).norm()) for a, b in pairwise(queries)) > 1e-3


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
def test_the_only_modality_of_an_utterance_is_never_hidden(rows: list[tuple[int, ...]]) -> None:
    before = lengths_to_masks(rows)
    after = ModalityMasking(1.0)(before)
    n_before = torch.stack([mask.any(dim=1) for mask in before.values()]).sum(dim=0)
    n_after = torch.stack([mask.any(dim=1) for mask in after.values()]).sum(dim=0)
    assert bool((n_after >= 1).all())
    assert bool((n_after >= n_before - 1).all())
    assert n_after[n_before == 1].tolist() == [1] * int((n_before == 1).sum())
    for m, mask in after.items():  # a modality is kept or hidden as a whole
        kept = mask.any(dim=1)
        assert torch.equal(mask, before[m] & kept.unsqueeze(1))


def test_evaluation_and_a_single_modality_hide_nothing() -> None:
    masks = lengths_to_masks([(2, 3, 4)] * 50)
    kept = ModalityMasking(1.0).eval()(masks)
    assert all(torch.equal(kept[m], masks[m]) for m in DIMS)
    alone = ModalityMasking(1.0)({"text": masks["text"]})
    assert torch.equal(alone["text"], masks["text"])


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf])
def test_a_rate_out_of_its_range_is_an_error(rate: float) -> None:
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


def test_the_default_sizes() -> None:
    head = build_head("query", {"speech": 768, "text": 768}, 4, {"speech": 13, "text": 13})
    assert head.layers == {"speech": tuple(range(13)), "text": tuple(range(13))}
    assert isinstance(head.queries, EmotionQueries)
    assert head.queries.queries.shape == (4, 256)
    assert len(head.queries.layers) == 2
    for encoder in head.encoders.values():  # type: ignore[operator]
        assert len(encoder.blocks) == 2
        assert encoder.blocks[0].attend.attention.n_heads == 4
        assert encoder.blocks[0].feed_forward.layers[0].out_features == 1024


def test_the_logits_follow_their_formula() -> None:
    dims = {"speech": 3, "text": 2}
    options: dict[str, Any] = {"n_queries": 3, "n_encoder_layers": 1, "n_decoder_layers": 1}
    options |= {"width": 4, "n_attention_heads": 2}
    head = randomised(build_head("query", dims, 3, {"speech": 2, "text": 1}, **options)).eval()
    lengths = {"speech": [3, 2], "text": [2, 0]}
    features = {m: double(i, 2, len(head.layers[m]), 3, d) for i, (m, d) in enumerate(dims.items())}
    logits = head(features, {m: torch.tensor(n) for m, n in lengths.items()}).logits
    weights = [math.exp(w) for w in head.projections.mixes.mixes["speech"].weights.tolist()]
    shares = {"speech": [w / sum(weights) for w in weights], "text": [1.0]}
    layer_norm, linear_layer = head.classifier
    for i in range(2):
        memory: list[Vector] = []
        for m in dims:
            rows = []
            for t in range(lengths[m][i]):
                layers = [features[m][i, k, t].tolist() for k in range(len(shares[m]))]
                mixed = [
                    sum(share * v for share, v in zip(shares[m], values, strict=True))
                    for values in zip(*layers, strict=True)
                ]
                normed = norm(head.projections.norms[m], mixed)
                rows.append(linear(head.projections.linears[m], normed))
            memory += slow_encoder(head.encoders[m], rows) if rows else []
        pooled = mean(slow_decoder(head.queries, memory))  # the mean over all queries
        assert logits[i].tolist() == pytest.approx(linear(linear_layer, norm(layer_norm, pooled)))


def test_a_hidden_modality_gets_no_gradient_and_equals_a_missing_modality() -> None:
    head = small(masking=1.0)
    features, lengths = batch(12)
    features = {m: x.requires_grad_() for m, x in features.items()}
    logits = head(features, lengths).logits
    logits.square().sum().backward()
    reached = {
        m: x.grad.abs().amax(dim=(1, 2)) > 0 for m, x in features.items() if x.grad is not None
    }
    assert (reached["speech"] ^ reached["text"]).all()  # exactly one of the two is hidden
    assert reached["speech"].any()
    assert reached["text"].any()
    missing = {m: torch.where(reached[m], 4, 0) for m in features}
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


def test_masking_acts_only_in_training() -> None:
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
        ({"n_encoder_layers": -1}, "n_encoder_layers must be at least 0"),
        ({"width": 10, "n_attention_heads": 4}, "width 10 cannot be divided"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"masking": "often"}, "query option 'masking' must be of type float"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        build_head("query", DIMS, 3, **options)
