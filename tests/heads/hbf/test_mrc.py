"""MRC: the gradient from the fusion to an input projection, alone and inside ``hbf``."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads import Head, build_head
from mser.heads.hbf.mrc import KINDS, ModalityConstraint, without_conflict
from mser.tests.support.slow_layers import double

DIMS = {"speech": 8, "text": 6}
quick = settings(max_examples=25, deadline=None)


def slow_projection(fused: Tensor, own: Tensor) -> Tensor:
    pairs = list(zip(fused.flatten().tolist(), own.flatten().tolist(), strict=True))
    dot = sum(f * o for f, o in pairs)
    square = sum(o * o for _, o in pairs)
    if dot >= 0:
        return fused
    return torch.tensor([f - dot / square * o for f, o in pairs]).double().reshape(fused.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_constraint_does_not_change_the_values(kind: str, beta: float) -> None:
    z = double(0, 3, 4, 5).float().requires_grad_()
    to_fusion, own = ModalityConstraint(kind, beta)(z)
    assert torch.equal(to_fusion, z)
    assert torch.equal(own, z)


@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(0.01, 100))
@quick
def test_the_projection_follows_its_formula(seed: int, along: float, scale: float) -> None:
    own = double(seed, 2, 3, 4)
    fused = scale * (double(seed + 1, 2, 3, 4) + along * own)
    z = double(seed + 2, 2, 3, 4).requires_grad_()
    for_fusion, for_own = ModalityConstraint("project", 0.0)(z)
    ((fused * for_fusion).sum() + (own * for_own).sum()).backward()
    expected = slow_projection(fused, own)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, expected + own)
    # The result never conflicts with g_own, and a gradient without conflict is not changed.
    assert (without_conflict(fused, own) * own).sum() >= -1e-9 * scale
    if (fused * own).sum() > 0:
        assert torch.equal(without_conflict(fused, own), fused)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_the_projection_works_for_gradients_of_any_size(scale: float) -> None:
    own = torch.tensor([3.0, 4.0]) * scale
    fused = torch.tensor([-1.0, 0.0])
    torch.testing.assert_close(without_conflict(fused, own), torch.tensor([-0.64, 0.48]))


def test_without_a_gradient_of_the_modality_there_is_no_conflict() -> None:
    fused = double(0, 2, 3).requires_grad_()
    assert torch.equal(without_conflict(fused, torch.zeros_like(fused)), fused)
    z = double(1, 2, 3).requires_grad_()
    to_fusion, _ = ModalityConstraint("project", 0.0)(z)
    (fused.detach() * to_fusion).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, fused)


@pytest.mark.parametrize(("kind", "beta"), [("off", 0.0), ("scale", 1.0)])
def test_the_gradient_is_the_derivative_without_a_constraint(kind: str, beta: float) -> None:
    constraint = ModalityConstraint(kind, beta)
    z = double(0, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: constraint(z)[0].sin() * constraint(z)[1].exp(), (z,))


def built(**options: Any) -> Head:
    torch.manual_seed(0)
    settings = {"width": 8, "dropout": 0.0, "mb": False} | options
    return build_head("hbf", DIMS, 4, {"speech": 4, "text": 4}, **settings)


def batch(
    head: Head, seed: int = 0, extra: int = 0, padding: float = 0.0
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    x = {m: double(seed + i, 4, 3, 5, d).float() for i, (m, d) in enumerate(head.dims.items())}
    n = {"speech": torch.tensor([5, 2, 3, 1]), "text": torch.tensor([1, 5, 2, 4])}
    for m, length in n.items():
        x[m] = F.pad(x[m], (0, 0, 0, extra))
        for i, k in enumerate(length.tolist()):
            x[m][i, :, k:] = padding
    return x, n, torch.tensor([0, 1, 2, 3])


def input_gradients_of_the_fused_loss(head: Head) -> dict[str, Tensor | None]:
    x, n, labels = batch(head)
    loss = F.cross_entropy(head(x, n).logits, labels)
    stems = {k: p for k, p in head.named_parameters() if k.startswith("stems.")}
    gradients = torch.autograd.grad(loss, list(stems.values()), allow_unused=True)
    return dict(zip(stems, gradients, strict=True))


def test_with_beta_0_the_fused_loss_does_not_reach_the_input_projections() -> None:
    assert set(input_gradients_of_the_fused_loss(built()).values()) == {None}
    head = built()
    loss = head(*batch(head)).loss
    assert loss is not None
    loss.backward()  # all are trained, by the losses of their modality
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


def test_beta_scales_the_gradient_of_the_fused_loss() -> None:
    full = input_gradients_of_the_fused_loss(built(mrc="off"))
    one = input_gradients_of_the_fused_loss(built(beta=1.0))
    half = input_gradients_of_the_fused_loss(built(beta=0.5))
    for name, gradient in full.items():
        assert gradient is not None
        assert gradient.any()
        torch.testing.assert_close(one[name], gradient, rtol=1e-6, atol=0)
        halved = half[name]
        assert halved is not None
        assert torch.equal(2 * halved, gradient)


def kept_tokens(head: Head, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return a list that the next forward pass fills with all z, by modality and stage."""
    kept: list[Tensor] = []
    plain = head.tokens

    def spy(*given: Any) -> Any:
        tokens = plain(*given)  # type: ignore[operator]
        kept.extend(z for stages in tokens.values() for z in stages)
        return tokens

    monkeypatch.setattr(head, "tokens", spy)
    return kept


def test_the_head_applies_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    conflicts = []
    for seed in range(4):
        # The losses are the same with and without MRC; without it, compute the two gradients.
        head = built(mrc="off", mb=True, own_weight=1.0)
        z = kept_tokens(head, monkeypatch)
        x, n, labels = batch(head, seed)
        out = head(x, n, labels)
        assert out.loss is not None
        fused_loss = F.cross_entropy(out.logits, labels)
        fused = torch.autograd.grad(fused_loss, z, retain_graph=True)
        own = torch.autograd.grad(out.loss - fused_loss, z)
        twin = built(mrc="project", mb=True, own_weight=1.0)
        z = kept_tokens(twin, monkeypatch)
        loss = twin(x, n, labels).loss
        assert loss is not None
        for gradient, f, o in zip(torch.autograd.grad(loss, z), fused, own, strict=True):
            expected = slow_projection(f.double(), o.double()) + o.double()
            torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
            conflicts.append(bool((f * o).sum() < 0))
            if conflicts[-1]:
                assert not torch.allclose(gradient, f + o, rtol=1e-3, atol=1e-6)
    assert any(conflicts)
    assert not all(conflicts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_constraint_does_not_depend_on_the_padding(kind: str) -> None:
    gradients = []
    for extra, padding in [(0, 0.0), (3, math.nan)]:
        head = built(mrc=kind)
        loss = head(*batch(head, 1, extra, padding)).loss
        assert loss is not None
        loss.backward()
        gradients.append({k: p.grad for k, p in head.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
