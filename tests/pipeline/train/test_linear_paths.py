"""The solutions for other targets than one class, against scikit-learn's on the same inputs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.linear_model import Ridge

from mser.heads.objectives import Attributes, Classes, Joined, Labels, Votes
from mser.pipeline.train.linear_paths import linear_path, strengths_of
from mser.pipeline.train.ridge_regression import RidgeRegression

STRENGTHS = (3.0, 0.1, 0.001)


def inputs(n: int, width: int, seed: int = 0) -> torch.Tensor:
    x = np.random.default_rng(seed).normal(1, 2, size=(n, width))
    return torch.tensor(x)


@pytest.mark.parametrize(("n", "width"), [(80, 7), (20, 50)])
def test_every_solution_is_that_of_ridge(n: int, width: int) -> None:
    x = inputs(n, width)
    y = x[:, :2] * 0.3 + torch.tensor(np.random.default_rng(1).normal(size=(n, 2))) + 4
    models = RidgeRegression(x, y).path(STRENGTHS)
    for strength, model in zip(STRENGTHS, models, strict=True):
        expected = Ridge(alpha=strength * n, solver="svd").fit(x.numpy(), y.numpy())
        np.testing.assert_allclose(model.weight.numpy(), expected.coef_, atol=1e-9)
        np.testing.assert_allclose(model.bias.numpy(), expected.intercept_, atol=1e-9)


def test_inputs_that_do_not_vary_give_the_mean() -> None:
    x, y = torch.ones(6, 3), torch.arange(6.0)[:, None]
    for model in RidgeRegression(x, y).path((1.0, 1e-4)):
        torch.testing.assert_close(model.logits(x), torch.full((6, 1), 2.5))


def test_attributes_are_solved_in_units_of_the_training_part() -> None:
    x = inputs(40, 5)
    y = x[:, :1] * 100 + 1000
    objective = Attributes(1)
    objective.fit(y)
    (model,) = linear_path(objective, x, y, [1e-9])
    torch.testing.assert_close(objective.predictions(model.logits(x)), y, rtol=1e-4, atol=1e-3)
    assert float(model.logits(x).std(correction=0)) == pytest.approx(1, rel=1e-5)


def test_several_labels_are_a_regression_for_each_class() -> None:
    x = inputs(150, 6)
    noise = torch.tensor(np.random.default_rng(2).normal(size=(150, 3)))
    y = (x[:, :3] + 2 * noise > 1).double()
    for strength, model in zip(STRENGTHS, linear_path(Labels(3), x, y, STRENGTHS), strict=True):
        for column in range(3):
            expected = SklearnLogistic(C=1 / (strength * 150), tol=1e-9, max_iter=10_000)
            expected.fit(x.numpy(), y[:, column].numpy())
            found = model.logits(x)[:, column].sigmoid().numpy()
            np.testing.assert_allclose(found, expected.predict_proba(x.numpy())[:, 1], atol=3e-3)


def test_a_class_without_a_label_is_improbable_and_finite() -> None:
    x = inputs(50, 4)
    y = torch.zeros(50, 2, dtype=torch.float64)
    y[:25, 0] = 1
    (model,) = linear_path(Labels(2), x, y, [0.1])
    logits = model.logits(x)
    assert logits.isfinite().all()
    assert (logits[:, 1].sigmoid() < 0.02).all()


def test_votes_for_one_class_are_that_class() -> None:
    x = inputs(120, 5)
    labels = (x[:, :3] + inputs(120, 3, seed=5)).argmax(dim=1)
    shares = torch.nn.functional.one_hot(labels, 3).double()
    pairs = zip(
        linear_path(Classes(3), x, labels, STRENGTHS, balanced=True),
        linear_path(Votes(3), x, shares, STRENGTHS, balanced=True),
        strict=True,
    )
    for of_classes, of_votes in pairs:
        torch.testing.assert_close(of_classes.logits(x), of_votes.logits(x))


def test_votes_are_fitted_as_repeated_utterances() -> None:
    """A vote of 2 : 1 is as two utterances of one class and one of another."""
    x = inputs(60, 4)
    votes = np.random.default_rng(3).multinomial(3, [0.5, 0.3, 0.2], size=60)
    (model,) = linear_path(Votes(3), x, torch.tensor(votes / 3), [0.05])
    repeated = np.repeat(x.numpy(), 3, axis=0)
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in votes])
    expected = SklearnLogistic(C=1 / (0.05 * 180), tol=1e-9, max_iter=10_000).fit(repeated, labels)
    found = model.logits(x).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected.predict_proba(x.numpy()), atol=3e-3)


def test_joined_targets_are_solved_side_by_side() -> None:
    x = inputs(60, 4)
    labels, numbers = (x[:, 0] > 1).long(), x[:, 1:3] * 2
    attributes = Attributes(2)
    attributes.fit(numbers)
    joined = Joined({"emotion": Classes(2), "attributes": attributes})
    targets = torch.cat([labels[:, None].double(), numbers], dim=1)
    (model,) = linear_path(joined, x, targets, [0.1])
    (first,) = linear_path(Classes(2), x, labels, [0.1])
    (second,) = linear_path(attributes, x, numbers, [0.1])
    torch.testing.assert_close(model.weight, torch.cat([first.weight, second.weight]))
    torch.testing.assert_close(model.bias, torch.cat([first.bias, second.bias]))


def test_attributes_alone_have_stronger_strengths() -> None:
    assert strengths_of(Attributes(1))[0] > strengths_of(Classes(2))[0]
    for objective in (Attributes(1), Classes(2)):
        strengths = strengths_of(objective)
        assert list(strengths) == sorted(strengths, reverse=True)
