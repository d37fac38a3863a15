"""Standardisation against numpy on all frames, and against scikit-learn on pooled vectors."""

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from mser.heads import build_head
from mser.heads.modules.standardisation import (
    FLOOR,
    Standardisation,
    frame_statistics,
    pooled_statistics,
)

LAYERS, DIM = 2, 3


def pooled(frames: list[np.ndarray]) -> torch.Tensor:
    """(N, L, 2 · D): the mean and the deviation over the frames of each (L, T, D)."""
    rows = [np.concatenate([x.mean(axis=1), x.std(axis=1)], axis=1) for x in frames]
    return torch.tensor(np.stack(rows))


def test_utterances_of_equal_length_give_the_statistics_of_all_frames() -> None:
    generator = np.random.default_rng(0)
    frames = [generator.normal(n, 1 + n, size=(LAYERS, 20, DIM)) for n in range(5)]
    mean, deviation = frame_statistics(pooled(frames))
    everything = np.concatenate(frames, axis=1)
    np.testing.assert_allclose(mean, everything.mean(axis=1))
    np.testing.assert_allclose(deviation, everything.std(axis=1))


def test_a_long_utterance_weighs_as_much_as_a_short_one() -> None:
    generator = np.random.default_rng(0)
    frames = [
        generator.normal(n, 1, size=(LAYERS, length, DIM)) for n, length in [(0, 5), (9, 500)]
    ]
    mean, deviation = frame_statistics(pooled(frames))
    repeated = np.concatenate([np.repeat(frames[0], 100, axis=1), frames[1]], axis=1)
    np.testing.assert_allclose(mean, repeated.mean(axis=1))
    np.testing.assert_allclose(deviation, repeated.std(axis=1))


def test_pooled_vectors_are_standardised_as_by_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(5, [1e-3, 1, 1e3], size=(50, LAYERS, DIM))
    module = Standardisation(LAYERS, DIM).double()
    module.fit(*pooled_statistics(torch.tensor(vectors)))
    found = module(torch.tensor(vectors))
    for layer in range(LAYERS):
        expected = StandardScaler().fit_transform(vectors[:, layer])
        np.testing.assert_allclose(found[:, layer], expected, atol=1e-9)


def test_a_dimension_that_hardly_varies_does_not_explode() -> None:
    module = Standardisation(1, 3).double()
    module.fit(
        torch.tensor([[100.0, 0.0, 2.0]], dtype=torch.float64),
        torch.tensor([[1e-9, 0.0, 0.5]], dtype=torch.float64),
    )
    (found,) = module(torch.tensor([[[100.1, 3.0, 3.0]]], dtype=torch.float64))[0]
    np.testing.assert_allclose(found, [0.1 / (100 * FLOOR), 3.0, 2.0], rtol=1e-6)


def test_every_layer_of_frames_has_its_own_statistics() -> None:
    module = Standardisation(LAYERS, DIM)
    mean, deviation = torch.randn(LAYERS, DIM), torch.rand(LAYERS, DIM) + 0.5
    module.fit(mean, deviation)
    x = torch.randn(4, LAYERS, 7, DIM)
    expected = (x - mean[None, :, None]) / deviation[None, :, None]
    torch.testing.assert_close(module(x), expected)


def test_a_head_standardises_its_input_and_keeps_the_padding_zero() -> None:
    head = build_head("query", {"speech": DIM}, 2, {"speech": LAYERS}, width=8, n_attention_heads=2)
    head.standardise()
    mean, deviation = torch.randn(LAYERS, DIM), torch.rand(LAYERS, DIM) + 0.5
    head.standardisation("speech").fit(mean, deviation)
    x, lengths = torch.randn(2, LAYERS, 4, DIM), torch.tensor([4, 1])
    hidden, _ = head.inputs({"speech": x}, {"speech": lengths})
    expected = (x - mean[None, :, None]) / deviation[None, :, None]
    torch.testing.assert_close(hidden["speech"][0], expected[0])
    torch.testing.assert_close(hidden["speech"][1, :, :1], expected[1, :, :1])
    assert (hidden["speech"][1, :, 1:] == 0).all()


def test_weights_with_statistics_make_a_new_head_standardise() -> None:
    dims, layers = {"speech": DIM}, {"speech": LAYERS}
    trained = build_head("linear", dims, 2, layers)
    trained.standardise()
    statistics = torch.randn(LAYERS, 2 * DIM), torch.rand(LAYERS, 2 * DIM) + 0.5
    trained.standardisation("speech").fit(*statistics)
    new = build_head("linear", dims, 2, layers)
    new.load_state_dict(trained.state_dict())
    batch = {"speech": torch.randn(3, LAYERS, 5, DIM)}, {"speech": torch.tensor([5, 2, 1])}
    torch.testing.assert_close(new(*batch).logits, trained(*batch).logits)
