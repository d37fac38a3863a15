"""The linear head against numpy: what it pools, joins and classifies."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mser.heads import HeadError, build_head
from mser.heads.linear import LinearProbe

DIMS, LAYERS = {"speech": 4, "text": 3}, {"speech": 3, "text": 2}
LENGTHS = {"speech": torch.tensor([6, 2, 0]), "text": torch.tensor([1, 3, 2])}


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(3, LAYERS[m], 6, dim, generator=generator) for m, dim in DIMS.items()}


def head(**options: Any) -> LinearProbe:
    torch.manual_seed(1)
    built = build_head("linear", DIMS, 4, LAYERS, **options)
    assert isinstance(built, LinearProbe)
    built.standardise()
    for modality in DIMS:
        module = built.standardisation(modality)
        module.fit(torch.randn(module.mean.shape), torch.rand(module.mean.shape) + 0.5)
    return built.eval()


def vector(built: LinearProbe, hidden: dict[str, Tensor], n: int, with_std: bool) -> np.ndarray:
    """The standardised input of the classifier for one utterance, layer by layer."""
    parts = []
    for m in DIMS:
        length, module = int(LENGTHS[m][n]), built.standardisation(m)
        for layer in range(LAYERS[m]):
            frames = hidden[m][n, layer, :length].numpy().astype(np.float64)
            width = module.mean.shape[1]
            if length == 0:
                parts.append(np.zeros(width))
                continue
            pooled = [frames.mean(axis=0)] + ([frames.std(axis=0)] if with_std else [])
            mean, deviation = module.mean[layer].numpy(), module.deviation[layer].numpy()
            parts.append((np.concatenate(pooled) - mean) / deviation)
    return np.concatenate(parts)


@pytest.mark.parametrize("pooling", ["mean", "mean_std"])
def test_the_layers_and_modalities_are_pooled_standardised_and_joined(pooling: str) -> None:
    built, hidden = head(pooling=pooling), features()
    logits = built(hidden, LENGTHS).logits.detach().numpy()
    weight = built.classifier.weight.detach().numpy()
    bias = built.classifier.bias.detach().numpy()
    for n in range(3):
        expected = weight @ vector(built, hidden, n, pooling == "mean_std") + bias
        np.testing.assert_allclose(logits[n], expected, atol=1e-5)
    assert built.is_linear


@pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"layer": "mix"}, {"layer": 1}])
def test_pooled_features_give_what_the_frames_give(options: dict[str, Any]) -> None:
    built, hidden = head(**options), features()
    read = {m: x[:, list(built.layers[m])] for m, x in hidden.items()}
    pooled = {}
    for m, x in read.items():
        rows = []
        for utterance, length in zip(x, LENGTHS[m].tolist(), strict=True):
            some = utterance[:, : max(1, length)]
            rows.append(torch.cat([some.mean(dim=1), some.std(dim=1, correction=0)], dim=1))
        pooled[m] = torch.stack(rows)
    found = built.classify(pooled, LENGTHS).logits
    torch.testing.assert_close(found, built(read, LENGTHS).logits, atol=1e-5, rtol=1e-5)


def test_what_is_not_linear_says_so() -> None:
    assert head(layer="last").is_linear
    for options in ({"layer": "mix"}, {"pooling": "attention"}, {"dropout": 0.1}):
        assert not head(**options).is_linear


def test_attention_pools_frames_of_joined_layers() -> None:
    built = head(pooling="attention")
    assert not built.reads_pooled
    assert built.classifier.in_features == 3 * 4 + 2 * 3
    assert built(features(), LENGTHS).logits.shape == (3, 4)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(HeadError, match="unknown pooling 'max'"):
        build_head("linear", DIMS, 4, LAYERS, pooling="max")
