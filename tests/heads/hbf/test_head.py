"""``hbf``: the layers, the fusion, the terms of the loss, and utterances without a modality."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mser.heads import Head, build_head
from mser.heads.hbf import contrastive_losses
from mser.heads.modules.contrastive import info_nce, supervised_contrastive
from mser.tests.support.slow_layers import double

DIMS = {"speech": 8, "text": 6}


@pytest.mark.parametrize(
    ("options", "n_layers", "layers"),
    [
        ({}, 13, (4, 8, 12)),
        ({}, 25, (8, 16, 24)),
        ({}, 2, (0, 1)),
        ({}, 1, (0,)),
        ({"hierarchical": False}, 13, (12,)),
        ({"depths": [0, 0.5, 1]}, 13, (0, 6, 12)),
        ({"depths": (1.0, 0.0)}, 13, (0, 12)),
        # Rounded to the nearest layer: 5/3 and 10/3; 3.6 and 8.4; 11.4.
        ({}, 6, (2, 3, 5)),
        ({"depths": [0.3, 0.7]}, 13, (4, 8)),
        ({"depths": [0.95]}, 13, (11,)),
    ],
)
def test_the_depths_are_rounded_to_layers(
    options: dict[str, Any], n_layers: int, layers: tuple[int, ...]
) -> None:
    head = build_head("hbf", {"speech": 8}, 4, {"speech": n_layers}, width=8, **options)
    assert head.layers == {"speech": layers}


def test_each_stage_reads_its_own_layer() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", {"speech": 8}, 4, {"speech": 13}, width=8, depths=(1.0, 0.0)).eval()
    x = torch.randn(1, 2, 5, 8)
    deep, shallow = head.tokens({"speech": x})["speech"]  # type: ignore[operator]
    x[:, 0] = 0  # position 0 of the batch is layer 0, which the second stage reads
    deep_after, shallow_after = head.tokens({"speech": x})["speech"]  # type: ignore[operator]
    assert torch.equal(deep, deep_after)
    assert not torch.equal(shallow, shallow_after)


def test_the_hierarchy_adds_no_parameters() -> None:
    count = [
        sum(p.numel() for p in build_head("hbf", DIMS, 4, hierarchical=h).parameters())
        for h in (True, False)
    ]
    assert count[0] == count[1]


CONTRAST = {"intra_modal", "inter_modal"}
OWN = {"uni_modal"}
PLAIN: dict[str, Any] = {"mrc": "off", "mb": False}


@pytest.mark.parametrize(
    ("count", "training", "options", "terms"),
    [
        (2, True, {}, OWN | CONTRAST),
        (2, True, {"supervised": True}, OWN | CONTRAST),
        (2, True, {"intra_weight": 0}, OWN | {"inter_modal"}),
        (2, True, {"inter_weight": 0}, OWN | {"intra_modal"}),
        (2, True, {"intra_weight": 0, "inter_weight": 0}, OWN),
        (2, True, {"dropout": 0}, OWN | {"inter_modal"}),
        (2, False, {}, OWN | {"inter_modal"}),
        (1, True, {}, OWN | {"intra_modal"}),
        (1, False, {}, OWN),
        (2, True, {"mrc": "off"}, OWN | CONTRAST),
        (2, True, {"mb": False}, OWN | CONTRAST),
        (2, True, {"mb": False, "mrc": "project"}, OWN | CONTRAST),
        (2, True, {"mb": False, "own_weight": 0}, CONTRAST),
        (2, True, PLAIN, OWN | CONTRAST),
        (2, True, PLAIN | {"own_weight": 0}, CONTRAST),
        (1, False, PLAIN, OWN),
        (1, False, PLAIN | {"own_weight": 0}, set()),
    ],
)
def test_the_options_switch_terms_off(
    count: int, training: bool, options: dict[str, Any], terms: set[str]
) -> None:
    dims = dict(list(DIMS.items())[:count])
    head = build_head("hbf", dims, 4, width=8, **options).train(training)
    features = {m: torch.randn(3, 5, d) for m, d in dims.items()}
    out = head(features, {m: torch.tensor([5, 2, 1]) for m in dims}, torch.tensor([0, 1, 1]))
    assert set(out.terms) == {"cross_entropy"} | terms
    assert all(math.isfinite(v) for v in out.terms.values())


def test_without_mrc_mb_and_the_uni_modal_loss_no_part_of_them_remains() -> None:
    x = {m: torch.randn(4, 5, d) for m, d in DIMS.items()}
    n = {m: torch.tensor([5, 2, 1, 4]) for m in DIMS}
    labels = torch.tensor([0, 1, 1, 0])
    heads, outs, losses = [], [], []
    full_options = {"mrc": "scale", "beta": 1.0, "mb": True, "own_weight": 2.0}
    for options in (PLAIN | {"own_weight": 0.0}, full_options):
        torch.manual_seed(0)
        heads.append(build_head("hbf", DIMS, 4, width=8, **options))
        torch.manual_seed(1)
        outs.append(heads[-1](x, n, labels))
        losses.append(cast(Tensor, outs[-1].loss))
        losses[-1].backward()
    plain, full = (dict(head.named_parameters()) for head in heads)
    assert set(full) - set(plain) == {k for k in full if k.startswith("own_classifiers.")}
    assert set(heads[1].state_dict()) - set(full) == {"turn_order.confidence"}
    assert set(heads[0].state_dict()) == set(plain)
    assert all(torch.equal(p, full[k]) for k, p in plain.items())
    assert torch.equal(outs[0].logits, outs[1].logits)
    torch.testing.assert_close(losses[0] + 2 * outs[1].terms["uni_modal"], losses[1])
    # After the input projections, the losses of the modalities do not change the gradients.
    same = [k for k in plain if not k.startswith("stems.")]
    torch.testing.assert_close([plain[k].grad for k in same], [full[k].grad for k in same])


def test_supervised_changes_only_the_intra_modal_term() -> None:
    values = []
    for supervised in (False, True):
        torch.manual_seed(0)
        head = build_head("hbf", {"speech": 8}, 4, width=8, supervised=supervised)
        x, n = {"speech": torch.randn(4, 5, 8)}, {"speech": torch.tensor([5, 2, 1, 4])}
        values.append(head(x, n, torch.tensor([0, 1, 1, 0])).terms)
    assert values[0]["cross_entropy"] == values[1]["cross_entropy"]
    assert values[0]["intra_modal"] != values[1]["intra_modal"]


def test_the_contrast_compares_two_passes_of_the_input_projections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(a: Tensor, b: Tensor, *others: Any) -> Tensor:
        seen.append((a, b))
        return info_nce(a, b, *others)

    monkeypatch.setattr(contrastive_losses, "info_nce", spy)
    head = build_head("hbf", DIMS, 4, width=8)
    x = {m: torch.randn(3, 5, d) for m, d in DIMS.items()}
    head(x, {m: torch.tensor([5, 2, 1]) for m in DIMS}, torch.tensor([0, 1, 1]))
    (speech, speech_again), (text, text_again), across = seen
    assert not torch.equal(speech, speech_again)
    assert not torch.equal(text, text_again)
    assert across[0] is speech
    assert across[1] is text
    names, parameters = zip(*head.named_parameters(), strict=True)
    own = ("stems.speech.", "projections.speech.")
    for view in (speech, speech_again):
        gradients = torch.autograd.grad(view.sum(), parameters, allow_unused=True)
        trained = {name for name, g in zip(names, gradients, strict=True) if g is not None}
        assert trained == {name for name in names if name.startswith(own)}


@pytest.mark.parametrize("supervised", [False, True])
def test_the_gradient_of_the_contrast_goes_through_both_views(supervised: bool) -> None:
    """With a fixed seed, the gradient equals the difference quotient of the loss."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "dropout": 0.5,
        "intra_weight": 1.0,
        "supervised": supervised,
        "temperature": 0.5,
    }
    head = build_head("hbf", {"speech": 4}, 3, width=4, projection=3, **options, **PLAIN).double()
    x, n, labels = double(1, 4, 3, 4), torch.tensor([3, 2, 1, 3]), torch.tensor([0, 1, 1, 2])

    def loss() -> Tensor:
        torch.manual_seed(7)  # the same dropout masks each time
        out = head({"speech": x}, {"speech": n}, labels)
        return cast(Tensor, out.loss)

    loss().backward()
    names = ["stems.speech.stems.0.linear.bias", "projections.speech.0.bias"]
    for parameter in map(head.get_parameter, names):
        for k in range(len(parameter)):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[k] += step
                    values.append(loss().item())
                    parameter[k] -= step
            quotient = (values[0] - values[1]) / 2e-5
            assert parameter.grad is not None
            assert parameter.grad[k].item() == pytest.approx(quotient, rel=1e-4, abs=1e-7)


def test_the_dropout_views_of_a_long_utterance_differ() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", {"speech": 8}, 4, width=64)
    hidden = {"speech": torch.randn(1, 1, 2000, 8)}
    first, second = (head.tokens(hidden)["speech"][0].mean(1) for _ in range(2))  # type: ignore[operator]
    dropped = [(x == 0).float().mean().item() for x in (first, second)]
    assert all(0 < share < 0.3 for share in dropped)
    assert not torch.equal(first == 0, second == 0)


def test_modalities_exchange_information_through_bottlenecks() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, width=8).eval()
    x = {m: torch.randn(1, 5, d) for m, d in DIMS.items()}
    n = {m: torch.tensor([5]) for m in DIMS}
    hidden, masks = head.inputs(x, n)
    before = head.fuse(head.tokens(hidden), masks)  # type: ignore[operator]
    hidden["speech"] = -hidden["speech"]
    after = head.fuse(head.tokens(hidden), masks)  # type: ignore[operator]
    text = slice(8, 16)  # [speech ; text ; bottlenecks]
    assert not torch.allclose(before[:, text], after[:, text])  # through two earlier stages
    single = build_head("hbf", DIMS, 4, width=8, depths=(1.0,)).eval()
    after = single.fuse(single.tokens(hidden), masks)  # type: ignore[operator]
    hidden["speech"] = -hidden["speech"]
    before = single.fuse(single.tokens(hidden), masks)  # type: ignore[operator]
    assert torch.equal(
        before[:, text], after[:, text]
    )  # with one stage, no information has passed yet


def test_the_fusion_follows_its_equations() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, {"speech": 3, "text": 3}, width=8, depths=(0, 0.5, 1)).eval()
    x = {m: torch.randn(2, 3, 5, d) for m, d in DIMS.items()}
    hidden, masks = head.inputs(x, {m: torch.tensor([5, 5]) for m in DIMS})
    b, passed = head.bottlenecks.expand(2, -1, -1), []  # type: ignore[operator]
    for k, stage in enumerate(head.stages):  # type: ignore[arg-type]
        z = {m: head.stems[m].stems[k](hidden[m][:, k]) for m in DIMS}  # type: ignore[index,union-attr]
        y, b = stage(z, masks, b)
        passed.append(b)
    parts = [y["speech"].mean(1), y["text"].mean(1), sum(passed).mean(1) / 3]
    fused = head.fuse(head.tokens(hidden), masks)  # type: ignore[operator]
    torch.testing.assert_close(fused, torch.cat(parts, dim=1))


def without_text(head: Head) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Return five utterances, the second and the last without text, and those with text."""
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(5, len(head.layers[m]), 4, d, generator=g) for m, d in DIMS.items()}
    n = {"speech": torch.tensor([4, 2, 3, 1, 4]), "text": torch.tensor([3, 0, 1, 4, 0])}
    return x, n, torch.tensor([0, 1, 2, 3, 1]), torch.tensor([0, 2, 3])


@pytest.mark.parametrize("supervised", [True, False])
def test_an_utterance_without_a_modality_is_not_in_its_losses(supervised: bool) -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, width=8, dropout=0.5, supervised=supervised)
    x, n, labels, rest = without_text(head)
    few = ({m: v[rest] for m, v in x.items()}, {m: v[rest] for m, v in n.items()}, labels[rest])
    turn = {"turn": "text"}
    both, alone = head.eval()(x, n, labels, **turn).terms, head(*few, **turn).terms
    for name in ("uni_modal", "inter_modal", "agreement"):
        torch.testing.assert_close(both[name], alone[name])
    a, b = torch.randn(2, 5, 3)
    pairs = ({"text": a}, {"text": b}, {"text": n["text"] > 0}, 0.1)
    value = contrastive_losses.intra_modal(*pairs, labels if supervised else None)
    expected = (
        supervised_contrastive(a[rest], b[rest], labels[rest], 0.1)
        if supervised
        else info_nce(a[rest], b[rest], 0.1)
    )
    torch.testing.assert_close(value, expected)


def test_the_contrast_of_no_utterance_is_zero() -> None:
    a, none = torch.randn(3, 2, requires_grad=True), torch.zeros(3, dtype=torch.bool)
    for labels in (None, torch.tensor([0, 0, 1])):
        value = contrastive_losses.intra_modal({"m": a}, {"m": a}, {"m": none}, 0.1, labels)
        value.backward()
        assert value == 0
        assert a.grad is not None
        assert not a.grad.any()


@torch.no_grad()
def test_the_uni_modal_loss_is_the_mean_over_the_modalities() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, width=8).eval()
    head.objective.class_weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x, n, labels, _ = without_text(head)
    hidden, _ = head.inputs(x, n)
    tokens = head.tokens(hidden)  # type: ignore[operator]
    slow = 0.0
    for m in DIMS:
        losses, having = 0.0, [i for i in range(5) if n[m][i] > 0]
        for i in having:
            pooled = sum(z[i, : n[m][i]].mean(0) for z in tokens[m]) / 3
            log_p = head.own_classifiers[m](pooled).log_softmax(0)  # type: ignore[index,operator]
            weight = float(head.objective.class_weights[labels[i]])
            losses -= weight * float(log_p[labels[i]])
        slow += losses / len(having) / 2
    assert float(head(x, n, labels).terms["uni_modal"]) == pytest.approx(slow, rel=1e-5)
    only = head(x, n | {"text": torch.zeros_like(n["text"])}, labels).terms["uni_modal"]
    speech = head(x, n, labels, turn="speech").terms["uni_modal"]
    torch.testing.assert_close(only, speech)  # a modality that no utterance has is not counted


def test_the_pooled_vector_of_a_missing_modality_is_zero() -> None:
    head = build_head("hbf", DIMS, 4, width=8).eval()
    x, n, *_ = without_text(head)
    hidden, masks = head.inputs(x, n)
    fused = head.fuse(head.tokens(hidden), masks)  # type: ignore[operator]
    assert not fused[[1, 4], 8:16].any()
    assert fused[[0, 2, 3], 8:16].any(dim=1).all()


def test_masking_hides_modalities_only_in_training() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, width=8, dropout=0.0, masking=1.0, mrc="off", mb=False)
    x = {m: torch.randn(200, 3, d) for m, d in DIMS.items()}
    n = {m: torch.full((200,), 3) for m in DIMS}
    labels = torch.zeros(200, dtype=torch.int64)
    none = torch.zeros_like(n["text"])
    alone = [head(x, n | {m: none}).logits for m in DIMS]
    logits = head(x, n).logits
    hits = [torch.isclose(logits, other, atol=1e-5).all(dim=1) for other in alone]
    assert (hits[0] | hits[1]).all()  # one modality of each utterance is hidden
    assert all(50 < hit.sum() < 150 for hit in hits)
    assert head(x, n, labels).terms["inter_modal"] == 0  # no utterance has both
    head.eval()
    both = head(x, n)
    head.masking.rate = 0.0  # type: ignore[union-attr]
    assert torch.equal(both.logits, head.train()(x, n).logits)
    assert not torch.isclose(both.logits, alone[0], atol=1e-5).all(dim=1).any()
