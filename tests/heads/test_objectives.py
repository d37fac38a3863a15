"""Objectives: losses by their formulas in float64, degenerate input, and heads that use them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mser.heads import HEADS, HeadError, build_head
from mser.heads.objectives import Attributes, Classes, Joined, Labels, Objective, Votes
from mser.tests.support.small_heads import SMALL

DIMS = {"speech": 6, "text": 5}


def outputs(n: int = 7, width: int = 3) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def shares(n: int = 7, width: int = 3) -> Tensor:
    votes = np.random.default_rng(n).multinomial(5, [1 / width] * width, size=n)
    return torch.tensor(votes / 5)


def slow_ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_the_loss_of_votes_follows_its_formula(loss: str) -> None:
    x, q = outputs(), shares()
    p = x.softmax(dim=1)
    expected = 0.0
    for of_votes, of_head in zip(q.tolist(), p.tolist(), strict=True):
        for share, probability in zip(of_votes, of_head, strict=True):
            if share > 0:
                expected -= share * math.log(probability)
                expected += share * math.log(share) if loss == "kl" else 0.0
    found = Votes(3, loss).terms(x, q)
    assert {name: float(value) for name, value in found.items()} == {
        loss: pytest.approx(expected / 7)
    }


def test_votes_for_one_class_have_the_loss_of_the_class() -> None:
    x, labels = outputs(), torch.tensor([0, 1, 2, 0, 0, 1, 2])
    votes, classes = Votes(3), Classes(3)
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    torch.testing.assert_close(
        votes.terms(x, one_hot)["cross_entropy"], classes.terms(x, labels)["cross_entropy"]
    )
    torch.testing.assert_close(votes.errors(x, one_hot), classes.errors(x, labels))


def test_class_weights_follow_their_formula_and_batches_add_up() -> None:
    x, labels = outputs(), torch.tensor([0, 1, 2, 0, 0, 1, 2])
    classes, votes = Classes(3), Votes(3)
    classes.class_weights = votes.class_weights = torch.tensor([0.5, 1.0, 3.0]).double()
    p, w = x.softmax(dim=1).numpy(), [0.5, 1.0, 3.0]
    expected = -sum(w[y] * math.log(p[i, y]) for i, y in enumerate(labels.tolist())) / 7
    found = classes.terms(x, labels)["cross_entropy"]
    assert float(found) == pytest.approx(expected)
    parts = [
        classes.terms(x[i], labels[i])["cross_entropy"] * len(x[i]) for i in (slice(3), slice(3, 7))
    ]
    assert float(sum(parts)) / 7 == pytest.approx(expected)
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    torch.testing.assert_close(votes.terms(x, one_hot)["cross_entropy"], found)


def test_the_loss_of_several_labels_follows_its_formula() -> None:
    x, y = outputs(), (outputs(9)[:7] > 0).double()
    p = 1 / (1 + np.exp(-x.numpy()))
    expected = -(y.numpy() * np.log(p) + (1 - y.numpy()) * np.log(1 - p))
    assert float(Labels(3).terms(x, y)["bce"]) == pytest.approx(expected.mean())
    np.testing.assert_allclose(Labels(3).errors(x, y).numpy(), expected.mean(axis=1))


def test_the_losses_of_attributes_follow_their_formulas() -> None:
    x, y = outputs(), 10 * outputs(8)[:7] + 50
    for loss in ("ccc", "mse"):
        objective = Attributes(3, loss)
        objective.fit(y)
        z = (y.numpy() - y.numpy().mean(axis=0)) / y.numpy().std(axis=0)
        expected = float(((x.numpy() - z) ** 2).mean())
        if loss == "ccc":
            expected = float(np.mean([1 - slow_ccc(x.numpy()[:, i], z[:, i]) for i in range(3)]))
        assert float(objective.terms(x, y)[loss]) == pytest.approx(expected, abs=1e-6)
        on_scale = x.numpy() * y.numpy().std(axis=0) + y.numpy().mean(axis=0)
        np.testing.assert_allclose(objective.predictions(x).numpy(), on_scale)


def test_constant_attributes_and_one_utterance_have_finite_gradients() -> None:
    for n in (1, 4):
        for loss in ("ccc", "mse"):
            objective = Attributes(2, loss)
            objective.fit(torch.full((n, 2), 3.0))
            assert objective.std.tolist() == [1.0, 1.0]
            x = torch.zeros(n, 2, requires_grad=True)
            value = objective.terms(x, torch.full((n, 2), 3.0))[loss]
            value.backward()
            assert value.isfinite()
            assert x.grad is not None
            assert x.grad.isfinite().all()


def every_objective() -> list[tuple[Objective, Tensor]]:
    numbers = outputs(5, 2) + 3
    labels = torch.tensor([0.0, 1, 2, 1, 0], dtype=torch.float64)
    attributes = Attributes(2)
    attributes.fit(numbers)
    joined = Joined({"emotion": Classes(3), "attributes": attributes})
    return [
        (Classes(3), labels.long()),
        (Votes(3, "kl"), shares(5)),
        (Labels(3), (shares(5) > 0).double()),
        (attributes, numbers),
        (Attributes(1, "mse"), numbers[:, :1]),
        (joined, torch.cat([labels[:, None], numbers], dim=1)),
    ]


def test_a_divergence_is_zero_from_itself_and_else_positive() -> None:
    for objective, targets in every_objective():
        a, b = outputs(5, objective.n_outputs), outputs(6, objective.n_outputs)[:5]
        itself = objective.divergence(a, a)
        torch.testing.assert_close(itself, torch.zeros(5, dtype=itself.dtype), atol=1e-9, rtol=0)
        assert (objective.divergence(a, b) > 0).all()
        errors = objective.errors(a, targets)
        assert errors.shape == (5,)
        assert (errors >= 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_every_objective(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = {m: torch.randn(5, 2, 4, dim, generator=generator) for m, dim in DIMS.items()}
    lengths = {"speech": torch.tensor([4, 2, 3, 1, 0]), "text": torch.tensor([3, 0, 1, 4, 2])}
    for objective, targets in every_objective():
        torch.manual_seed(0)
        n_outputs, layers = objective.n_outputs, dict.fromkeys(DIMS, 2)
        head = build_head(name, DIMS, n_outputs, layers, objective=objective, **SMALL[name])
        read = {m: x[:, list(head.layers[m])] for m, x in features.items()}
        for turn in head.turns() or (None,):
            more = {} if turn is None else {"turn": turn}
            output = head(read, lengths, targets, **more)
            assert output.logits.shape == (5, n_outputs)
            assert output.loss is not None
            output.loss.backward()
            assert set(objective.terms(output.logits, targets)) <= set(output.terms)
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)
        predicted = objective.predictions(output.logits)
        assert predicted.dtype == torch.float64
        assert predicted.shape == (5, n_outputs)


def test_supcon_needs_classes() -> None:
    with pytest.raises(HeadError, match=r"supervised compares .* set supervised=false"):
        build_head("hbf", DIMS, 2, objective=Attributes(2), supervised=True)
    build_head("hbf", DIMS, 2, objective=Classes(2), supervised=True)


@pytest.mark.parametrize(
    ("objective", "targets", "match"),
    [
        (Attributes(2), torch.zeros(3, 1), r"floating \(3, 2\), not \(3, 1\)"),
        (Attributes(1), torch.full((3, 1), math.nan), "must be finite"),
        (Labels(2), torch.zeros(3, 2, dtype=torch.int64), "floating"),
        (Classes(2), torch.tensor([0, 1, 2]), r"in 0 \.\. 1"),
    ],
)
def test_wrong_targets_are_refused(objective: Objective, targets: Tensor, match: str) -> None:
    with pytest.raises(HeadError, match=match):
        objective.require_targets(targets, 3)


def test_a_head_refuses_an_objective_of_another_width() -> None:
    with pytest.raises(HeadError, match="the objective has 2 outputs, but the head 3"):
        build_head("linear", DIMS, 3, objective=Attributes(2))


def test_the_scaling_is_saved_with_the_head() -> None:
    head = build_head("linear", DIMS, 1, objective=Attributes(1))
    assert isinstance(head.objective, Attributes)
    head.objective.fit(torch.tensor([[1.0], [5.0]]))
    other = build_head("linear", DIMS, 1, objective=Attributes(1))
    other.load_state_dict(head.state_dict())
    assert other.objective.predictions(torch.tensor([[1.0]])).tolist() == [[5.0]]
    assert not [key for key in build_head("linear", DIMS, 2).state_dict() if "objective" in key]
