"""The solver against scikit-learn's, on the same inputs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Sklearn

from mser.pipeline.train.logistic_regression import LogisticRegression
from mser.pipeline.train.preconditioner import Directions

STRENGTHS = (1.0, 0.03, 0.001)


def problem(n: int, width: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated inputs, as neighbouring layers give, and labels with noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(width, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    return x / x.std(), (x[:, :n_classes] + width**0.5 * noise).argmax(dim=1)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("n", "width"), [(300, 20), (60, 90), (280, 240)])
def test_every_solution_is_that_of_scikit_learn(n: int, width: int, balanced: bool) -> None:
    x, y = problem(n, width, 4)
    regression = LogisticRegression(x, y, 4, balanced)
    for strength, model in zip(STRENGTHS, regression.path(STRENGTHS), strict=True):
        weights = "balanced" if balanced else None
        expected = Sklearn(C=1 / (strength * n), class_weight=weights, tol=1e-8, max_iter=10_000)
        expected.fit(x.numpy(), y.numpy())
        found = model.logits(x).softmax(dim=1).numpy()
        np.testing.assert_allclose(found, expected.predict_proba(x.numpy()), atol=3e-3)
        scale = abs(expected.coef_).max()
        np.testing.assert_allclose(model.weight.numpy(), expected.coef_, atol=2e-2 * scale)


def test_two_classes_have_two_vectors_which_share_the_penalty() -> None:
    """scikit-learn has one vector w; ours are -w/2 and w/2, whose penalty is half as large."""
    x, y = problem(200, 10, 2)
    (model,) = LogisticRegression(x, y, 2).path([0.01])
    expected = Sklearn(C=2 / (0.01 * 200), tol=1e-8, max_iter=10_000).fit(x.numpy(), y.numpy())
    found = model.logits(x).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected.predict_proba(x.numpy()), atol=3e-3)


@pytest.mark.parametrize(("n", "width"), [(300, 20), (1200, 600)])
def test_directions_of_other_inputs_lead_to_the_same_minimum(n: int, width: int) -> None:
    x, y = problem(n, width, 4)
    generator = torch.Generator().manual_seed(1)
    others = torch.randn(n, width, generator=generator, dtype=torch.float64)
    (own,) = LogisticRegression(x, y, 4).path([0.01])
    (with_others,) = LogisticRegression(x, y, 4, directions=Directions(others)).path([0.01])
    found, expected = with_others.logits(x).softmax(dim=1), own.logits(x).softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_single_precision_gives_nearly_the_same() -> None:
    x, y = problem(300, 20, 4)
    (exact,) = LogisticRegression(x, y, 4).path([0.01])
    (single,) = LogisticRegression(x.float(), y, 4).path([0.01])
    torch.testing.assert_close(
        single.logits(x.float()).double(), exact.logits(x), atol=3e-2, rtol=0
    )


def test_a_class_without_an_utterance_is_never_predicted() -> None:
    x, y = problem(200, 10, 3)
    (model,) = LogisticRegression(x, 2 * (y % 2), 4).path([0.01])
    probabilities = model.logits(100 * x).softmax(dim=1)
    assert (probabilities[:, [1, 3]] < 1e-6).all()
    (alone,) = LogisticRegression(x, torch.full_like(y, 3), 4).path([0.01])
    assert (alone.logits(x).argmax(dim=1) == 3).all()


def test_the_result_does_not_depend_on_the_random_state() -> None:
    x, y = problem(700, 600, 3)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        (model,) = LogisticRegression(x.float(), y, 3).path([0.1])
        models.append(model)
    assert torch.equal(models[0].weight, models[1].weight)
