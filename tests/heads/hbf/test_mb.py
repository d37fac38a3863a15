"""MB: which modality learns in a turn, the agreement term, and the order of the turns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import Tensor

from mser.heads import HeadError, build_head
from mser.heads.hbf.head import HBF
from mser.heads.hbf.mb import MOMENTUM, TurnOrder, agreement
from mser.heads.hbf.mrc import KINDS
from mser.heads.objectives import Classes
from mser.tests.support.slow_layers import double

DIMS = {"speech": 8, "text": 6, "vision": 4}
quick = settings(max_examples=25, deadline=None)


def built(**options: Any) -> HBF:
    torch.manual_seed(0)
    return HBF(DIMS, 4, **({"width": 8, "projection": 4} | options))


def batch() -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    x = {m: double(i, 5, 4, d).float() for i, (m, d) in enumerate(DIMS.items())}
    n = {
        "speech": torch.tensor([4, 2, 3, 1, 0]),
        "text": torch.tensor([3, 0, 1, 4, 2]),
        "vision": torch.tensor([1, 2, 0, 4, 4]),
    }
    return x, n, torch.tensor([0, 1, 2, 3, 1])


def probabilities(logits: Tensor) -> list[float]:
    exponents = [math.exp(float(x)) for x in logits]
    return [e / sum(exponents) for e in exponents]


@given(
    st.integers(0, 2**31),
    st.integers(2, 3),
    st.lists(st.tuples(*[st.booleans()] * 3, st.integers(0, 3)), min_size=1, max_size=6),
)
@quick
def test_the_agreement_follows_its_formula(
    seed: int, count: int, rows: list[tuple[bool, bool, bool, int]]
) -> None:
    names = list(DIMS)[:count]
    logits = {m: 2 * double(seed + i, len(rows), 4) for i, m in enumerate(names)}
    present = {m: torch.tensor([row[i] for row in rows]) for i, m in enumerate(names)}
    labels = torch.tensor([row[3] for row in rows])
    total, pairs = 0.0, 0
    for i, y in enumerate(labels.tolist()):
        p = probabilities(logits["speech"][i])
        for other in names[1:]:
            if present["speech"][i] and present[other][i]:
                pairs += 1
                q = probabilities(logits[other][i])
                if q[y] > p[y]:
                    total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    value = float(agreement("speech", logits, present, labels, Classes(4)))
    assert math.isclose(value, total / max(pairs, 1), rel_tol=1e-9, abs_tol=1e-12)


def test_the_agreement_changes_only_the_modality_of_the_turn() -> None:
    present = dict.fromkeys(["speech", "text"], torch.ones(2, dtype=torch.bool))
    labels = torch.tensor([0, 1])
    speech = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    text = torch.tensor([[2.0, 0, 0], [2, 0, 0]], dtype=torch.float64, requires_grad=True)
    three = Classes(3)
    agreement("speech", {"speech": speech, "text": text}, present, labels, three).backward()
    assert text.grad is None
    assert speech.grad is not None
    assert speech.grad[0, 0] < 0  # text is more confident in the first utterance
    assert not speech.grad[1].any()  # and less confident in the second
    value = agreement("text", {"speech": speech, "text": text}, present, labels, three)
    assert torch.autograd.grad(value, text)[0][1].any()  # where speech is more confident


def test_the_gradient_of_the_agreement_is_its_derivative() -> None:
    present = dict.fromkeys(DIMS, torch.tensor([True, True, True, False]))
    labels = torch.tensor([0, 1, 2, 0])
    fixed = {m: 3 * double(i, 4, 3) for i, m in enumerate(DIMS)}

    def loss(x: Tensor) -> Tensor:
        return agreement("text", fixed | {"text": x}, present, labels, Classes(3))

    x = fixed["text"].requires_grad_()
    assert loss(x) > 0
    assert torch.autograd.gradcheck(loss, (x,))


def test_the_agreement_is_computed_in_float32_under_autocast() -> None:
    logits = {m: double(i, 4, 3).float() for i, m in enumerate(DIMS)}
    given = (
        logits,
        dict.fromkeys(DIMS, torch.ones(4, dtype=torch.bool)),
        torch.tensor([0, 1, 2, 0]),
        Classes(3),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = agreement("text", *given)
    assert torch.equal(inside, agreement("text", *given))


@pytest.mark.parametrize("mrc", KINDS)
@pytest.mark.parametrize("masking", [0.0, 0.5])
def test_in_a_turn_the_other_modalities_do_not_change(mrc: str, masking: float) -> None:
    head = built(mrc=mrc, masking=masking, agreement=1.0)
    adam = torch.optim.AdamW(head.parameters(), lr=0.01, weight_decay=0.1)
    x, n, labels = batch()
    for turn in 2 * head.turns():  # in the second round the optimiser has momentum
        before = {k: p.detach().clone() for k, p in head.named_parameters()}
        adam.zero_grad()
        loss = head(x, n, labels, turn=turn).loss
        assert loss is not None
        loss.backward()
        adam.step()
        for name, p in head.named_parameters():
            part, _, rest = name.partition(".")
            own = part in ("stems", "projections", "own_classifiers")
            fixed = own and not rest.startswith(f"{turn}.")
            assert (p.grad is None) == fixed, name
            assert torch.equal(p, before[name]) == fixed, name


def test_the_loss_of_a_turn_is_that_of_its_modality() -> None:
    head = built(agreement=0.7).eval()
    x, n, labels = batch()
    both = head(x, n, labels)
    turns = {m: head(x, n, labels, turn=m) for m in DIMS}
    assert set(both.terms) == {"cross_entropy", "uni_modal", "inter_modal"}
    for out in turns.values():
        assert torch.equal(out.logits, both.logits)
        assert set(out.terms) == set(both.terms) | {"agreement"}
        assert out.terms["agreement"] > 0
        weights = {"inter_modal": 0.1, "agreement": 0.7}
        total = sum(weights.get(k, 1.0) * v for k, v in out.terms.items())
        assert out.loss is not None
        torch.testing.assert_close(out.loss.detach(), total)
    # Three modalities have three pairs, and each pair is in two turns.
    for name in ("uni_modal", "inter_modal"):
        mean = torch.stack([out.terms[name] for out in turns.values()]).mean()
        torch.testing.assert_close(mean, both.terms[name])
    assert "agreement" not in built(agreement=0.0)(x, n, labels, turn="text").terms


def test_the_agreement_trains_the_input_projections_of_the_turn() -> None:
    gradients = []
    for weight in (0.0, 1.0):
        head = built(agreement=weight, dropout=0.0)
        loss = head(*batch(), turn="text").loss
        assert loss is not None
        loss.backward()
        gradient = head.get_parameter("stems.text.stems.0.linear.weight").grad
        assert gradient is not None
        gradients.append(gradient)
    assert not torch.allclose(gradients[0], gradients[1])


def set_confidence(head: HBF, modality: str, logit: float) -> None:
    """Make the classifier of a modality return this logit for class 0, and 0 for the others."""
    linear = f"own_classifiers.{modality}.1"
    head.get_parameter(f"{linear}.weight").data.zero_()
    head.get_parameter(f"{linear}.bias").data = torch.tensor([logit, 0.0, 0.0, 0.0])


def test_the_weakest_modality_has_the_first_turn() -> None:
    # One stage and few terms are enough here, and are fast.
    options = {"intra_weight": 0.0, "inter_weight": 0.0, "agreement": 0.0, "depths": (1.0,)}
    head = built(**options)
    assert head.turns() == ("speech", "text", "vision")  # no confidence yet: the order of dims
    x, n, _ = batch()
    labels = torch.zeros(5, dtype=torch.int64)

    def train(steps: int, logits: dict[str, float]) -> list[tuple[str | None, ...]]:
        orders = []
        for m, logit in logits.items():
            set_confidence(head, m, logit)
        for _ in range(steps):
            for turn in head.turns():
                head(x, n, labels, turn=turn)
            orders.append(head.turns())
        return orders

    weak_text = train(10, {"speech": 3.0, "text": -1.0, "vision": 1.0})
    assert set(weak_text) == {("text", "vision", "speech")}
    weak_speech = train(20, {"speech": -9.0, "text": 9.0, "vision": 1.0})
    assert weak_speech[-1] == ("speech", "vision", "text")  # the order follows the confidence
    assert weak_speech[0] == weak_text[-1]  # with a delay


def test_the_moving_average_follows_its_formula() -> None:
    order = TurnOrder(("speech", "text"), 4)
    labels = torch.tensor([1, 0, 3])
    expected = {"speech": 0.25, "text": 0.25}
    for step in range(5):
        m = "text" if step in (1, 4) else "speech"
        logits = double(step, 3, 4)
        errors = Classes(4).errors(logits, labels)
        order.update(m, errors, torch.tensor([True, False, True]))
        p = [probabilities(logits[i])[int(labels[i])] for i in (0, 2)]
        expected[m] = MOMENTUM * expected[m] + (1 - MOMENTUM) * sum(p) / 2
        order.update(m, errors, torch.zeros(3, dtype=torch.bool))  # no utterance has it
        order.update(m, errors * math.inf, torch.ones(3, dtype=torch.bool))
    assert order.confidence.tolist() == pytest.approx(list(expected.values()), rel=1e-6)


def test_only_training_updates_the_confidence(tmp_path: Path) -> None:
    head = built()
    given = batch()
    average = head.get_buffer("turn_order.confidence")
    start = average.clone()
    head(*given[:2], turn="text")  # without labels there is no confidence
    head.eval()
    head(*given)
    head(*given, turn="text")
    assert torch.equal(average, start)
    assert head.turns() == ()
    head.train()(*given, turn="text")
    assert (average != start).tolist() == [False, True, False]
    head(*given)
    assert (average != start).all()
    save_model(head, str(tmp_path / "head.safetensors"))
    twin = built()
    load_model(twin, tmp_path / "head.safetensors", strict=True)
    assert torch.equal(twin.get_buffer("turn_order.confidence"), average)
    assert twin.turns() == head.turns()


def test_which_heads_have_turns() -> None:
    assert built(mb=False).turns() == (None,)
    assert built(mrc="off").turns() == tuple(DIMS)
    alone = build_head("hbf", {"text": 6}, 4, width=8)
    assert alone.turns() == (None,)
    x, n, labels = batch()
    out = alone({"text": x["text"]}, {"text": n["text"].clamp(min=1)}, labels, turn="text")
    assert set(out.terms) == {"cross_entropy", "uni_modal", "intra_modal"}
    with pytest.raises(HeadError, match="unknown modality for a turn 'txet': did you mean 'text'"):
        built()(x, n, labels, turn="txet")
    with pytest.raises(HeadError, match="hbf has no turns without mb"):
        built(mb=False)(x, n, labels, turn="text")


@pytest.mark.parametrize(
    ("options", "modalities", "turns"),
    [
        ({"mb": False, "joint_steps": 2}, ["speech", "text"], (None, None)),
        ({"mb": True, "joint_steps": 2}, ["text"], (None, None)),  # one modality has no turns
        ({"mb": True, "joint_steps": 3}, ["speech", "text"], ("speech", "text")),
    ],
)
def test_joint_steps_are_the_steps_of_a_batch_without_turns(
    options: dict[str, Any], modalities: list[str], turns: tuple[str | None, ...]
) -> None:
    head = build_head("hbf", {m: DIMS[m] for m in modalities}, 4, width=8, **options)
    assert head.turns() == turns
    assert head.eval().turns() == ()


def test_a_turn_of_a_modality_that_no_utterance_has() -> None:
    head = built()
    x, n, labels = batch()
    n = {
        "speech": torch.full((5,), 2),
        "text": torch.zeros(5, dtype=torch.int64),
        "vision": n["vision"],
    }
    out = head(x, n, labels, turn="text")
    assert out.loss is not None
    out.loss.backward()
    assert out.terms["uni_modal"] == out.terms["agreement"] == out.terms["inter_modal"] == 0
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_training_in_turns_fits_a_few_utterances() -> None:
    torch.manual_seed(1)
    head = build_head("hbf", {"speech": 24, "text": 24}, 4, width=16, projection=8, dropout=0.0)
    x = {m: torch.randn(16, 3, 24) for m in head.dims}
    n, labels = {m: torch.full((16,), 3) for m in head.dims}, torch.randint(4, (16,))
    adam = torch.optim.AdamW(head.parameters(), lr=5e-3)
    for _ in range(60):
        if torch.equal(head(x, n).logits.argmax(1), labels):
            break
        for m in head.turns():
            adam.zero_grad()
            loss = head(x, n, labels, turn=m).loss
            assert loss is not None
            loss.backward()
            adam.step()
    assert torch.equal(head(x, n).logits.argmax(1), labels)
