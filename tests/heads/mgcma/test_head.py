"""``mgcma`` and its granularities: their modules, the order of the modules, the loss terms."""

import math
from inspect import signature
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from mser.heads import HeadError, HeadOutput, build_head
from mser.heads.mgcma.head import AlignmentHead

DIMS = {"speech": 12, "text": 10, "vision": 8}
SMALL: dict[str, Any] = {"width": 8, "n_attention_heads": 2, "n_blocks": 2}
GRANULARITIES = ("distribution", "token", "instance")
LABELS = torch.tensor([0, 1, 2, 1])


def build(name: str = "mgcma", count: int = 2, **options: Any) -> AlignmentHead:
    torch.manual_seed(0)
    head = build_head(name, dict(list(DIMS.items())[:count]), 4, **(SMALL | options))
    assert isinstance(head, AlignmentHead)
    return head


def inputs(
    head: AlignmentHead, lengths: list[list[int]], padding: float = math.nan, size: int = 6
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Utterance i has ``lengths[i]`` positions in each of the head's modalities."""
    g = torch.Generator().manual_seed(1)
    features, n = {}, {}
    for k, (m, dim) in enumerate(head.dims.items()):
        features[m] = torch.randn(len(lengths), size, dim, generator=g)
        n[m] = torch.tensor([row[k] for row in lengths])
        for i, length in enumerate(n[m].tolist()):
            features[m][i, length:] = padding
    return features, n


def run(head: AlignmentHead, **options: Any) -> HeadOutput:
    return head(*inputs(head, [[5, 2, 1], [1, 4, 6], [3, 3, 2], [6, 1, 4]], **options), LABELS)


@pytest.mark.parametrize("order", [(), *permutations(GRANULARITIES), ("token", "distribution")])
def test_the_modules_are_applied_in_the_order_of_the_list(order: tuple[str, ...]) -> None:
    head = build(modules=order).eval()
    assert tuple(head.alignments) == order
    hidden, masks = head.inputs(*inputs(head, [[5, 2], [1, 4], [3, 3], [6, 1]]))
    tokens, losses = head.projections(hidden), dict[str, Tensor]()
    for name in order:
        tokens, loss = head.alignments[name](tokens, masks)
        losses |= {} if loss is None else {name: loss}
    pooled = [
        torch.stack([x[i, : masks[m][i].sum()].mean(dim=0) for i in range(4)])
        for m, x in tokens.items()
    ]
    out = run(head)
    logits = head.classifier(torch.cat(pooled, dim=1))
    torch.testing.assert_close(out.logits, logits)
    cross_entropy = torch.nn.functional.cross_entropy(logits, LABELS)
    expected = losses | {"cross_entropy": cross_entropy}
    torch.testing.assert_close(out.terms, {k: v.detach() for k, v in expected.items()})
    torch.testing.assert_close(out.loss, sum(expected.values()))  # eq. 12


def test_every_order_of_the_modules_is_a_different_model() -> None:
    weights = build().state_dict()
    outputs = []
    for order in permutations(GRANULARITIES):
        head = build(modules=order).eval()
        head.load_state_dict(weights)
        out = run(head)
        assert out.loss is not None
        outputs.append((out.logits.sum().item(), out.loss.item()))
    assert len({round(loss, 5) for _, loss in outputs}) == 6
    # The instance module does not change the sequences, so only the other two affect the logits.
    assert len({round(total, 5) for total, _ in outputs}) == 2


def test_without_modules_the_classifier_reads_the_projections() -> None:
    head = build(modules=())
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {
        "projections",
        "classifier",
    }
    assert set(run(head).terms) == {"cross_entropy"}


def test_without_a_projection_the_modules_read_the_layer_mix() -> None:
    torch.manual_seed(0)
    dims, layers = {"speech": 8, "text": 8}, {"speech": 3, "text": 1}
    options: dict[str, Any] = {"n_attention_heads": 2, "input_projection": False, "dropout": 0.5}
    head = build_head("mgcma", dims, 4, layers, width=8, modules=(), **options)
    features = {m: torch.randn(2, n, 5, 8) for m, n in layers.items()}
    weights = torch.tensor([0.2, 0.5, 0.3])
    mix = head.get_parameter("projections.mixes.speech.weights")
    mix.data = weights.log()
    out = head(features, {"speech": torch.tensor([5, 3]), "text": torch.tensor([2, 5])})
    mixed = (features["speech"] * weights[None, :, None, None]).sum(dim=1)
    text = features["text"][:, 0]
    pooled = [
        torch.cat([mixed[i, :n].mean(dim=0), text[i, :k].mean(dim=0)])
        for i, (n, k) in enumerate([(5, 2), (3, 5)])
    ]
    torch.testing.assert_close(out.logits, head.classifier(torch.stack(pooled)))  # type: ignore[operator]


def test_without_a_projection_joined_layers_need_their_width() -> None:
    options: dict[str, Any] = {"n_attention_heads": 2, "input_projection": False, "n_blocks": 1}
    given = ("mgcma", {"speech": 8}, 4, {"speech": 3}, "concat")
    with pytest.raises(HeadError, match="of the 3 joined layers of speech: set width to 24, not 8"):
        build_head(*given, width=8, **options)
    out = build_head(*given, width=24, **options)(
        {"speech": torch.randn(2, 3, 5, 8)}, {"speech": torch.tensor([5, 3])}
    )
    assert out.logits.shape == (2, 4)


@pytest.mark.parametrize("order", [(), ("distribution", "token")])
def test_the_representations_are_the_pooled_sequences_before_and_after_the_modules(
    order: tuple[str, ...],
) -> None:
    head = build(modules=order).eval()
    features, lengths = inputs(head, [[5, 2], [1, 4], [3, 3], [6, 1]])
    shown = head.representations(features, lengths)
    assert list(shown) == ["before alignment", "after alignment"]
    hidden, masks = head.inputs(features, lengths)
    tokens = head.projections(hidden)
    for m, x in tokens.items():
        rows = [x[i, :n].mean(dim=0) for i, n in enumerate(lengths[m].tolist())]
        torch.testing.assert_close(shown["before alignment"][m], torch.stack(rows))
    for name in order:
        tokens, _ = head.alignments[name](tokens, masks)
    logits = head.classifier(torch.cat(list(shown["after alignment"].values()), dim=1))
    torch.testing.assert_close(logits, head(features, lengths).logits)
    changed = not torch.equal(*(of["speech"] for of in shown.values()))
    assert changed is bool(order)


@pytest.mark.parametrize(
    ("count", "options", "terms"),
    [
        (2, {}, {"distribution", "instance"}),
        (3, {}, {"distribution", "instance"}),
        (1, {}, set()),
        (2, {"modules": ["token", "instance"]}, {"instance"}),
        (2, {"modules": ["distribution", "instance"]}, {"distribution", "instance"}),
        (2, {"modules": ["distribution", "token"]}, {"distribution"}),
        (2, {"distribution_weight": 0}, {"instance"}),
        (2, {"instance_weight": 0.0}, {"distribution"}),
    ],
)
def test_the_terms_of_the_loss(count: int, options: dict[str, Any], terms: set[str]) -> None:
    out = run(build(count=count, **options))
    assert set(out.terms) == {"cross_entropy"} | terms
    assert all(math.isfinite(term) for term in out.terms.values())


def test_each_term_is_multiplied_by_its_weight() -> None:
    out = run(build(distribution_weight=0.5, instance_weight=3.0))
    total = 0.5 * out.terms["distribution"] + 3 * out.terms["instance"] + out.terms["cross_entropy"]
    torch.testing.assert_close(out.loss, total)


@pytest.mark.parametrize("name", GRANULARITIES)
def test_one_granularity_equals_a_list_of_one_module(name: str) -> None:
    alone, listed = run(build(name).eval()), run(build(modules=(name,)).eval())
    assert torch.equal(alone.logits, listed.logits)
    assert alone.terms == listed.terms
    with pytest.raises(HeadError, match=f"unknown {name} option 'modules'"):
        build(name, modules=("token",))


def test_all_heads_have_the_same_options_with_the_defaults_of_the_paper() -> None:
    defaults = {
        kind: {
            name: p.default
            for name, p in signature(type(build(kind))).parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }
        for kind in ("mgcma", *GRANULARITIES)
    }
    assert defaults["mgcma"].pop("modules") == GRANULARITIES
    assert defaults["mgcma"] == {
        "width": 768,
        "n_attention_heads": 12,
        "n_blocks": 6,
        "temperature": 0.07,
        "dropout": 0.1,
        "distribution_weight": 1.0,
        "instance_weight": 1.0,
        "distance_scale": 0.005,
        "input_projection": True,
        "output_projection": True,
        "distribution_returns": "mean",
        "token_final_norm": True,
        "instance_similarity": "cosine",
        "false_negatives": "drop",
    }
    assert all(options == defaults["mgcma"] for options in defaults.values())


@pytest.mark.parametrize(("width", "p"), [(768, 0.005), (8, 0.48)])
def test_distances_are_scaled_to_the_width(width: int, p: float) -> None:
    head = build("distribution", width=width)
    assert head.alignments["distribution"].p == pytest.approx(p)


@pytest.mark.parametrize("name", ["mgcma", *GRANULARITIES])
@pytest.mark.parametrize("count", [2, 3])
def test_an_absent_modality_is_neither_read_nor_compared(name: str, count: int) -> None:
    head = build(name, count).eval()
    lengths = [[5, 2, 1], [0, 4, 0], [3, 0, 2], [6, 1, 0]]
    out = head(*inputs(head, lengths), LABELS)
    other = head(*inputs(head, lengths, padding=1e4), LABELS)
    torch.testing.assert_close(out.logits, other.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.terms, other.terms)
    features, n = inputs(head, lengths)
    for i in range(4):
        alone = head(*({m: x[i : i + 1] for m, x in given.items()} for given in (features, n)))
        torch.testing.assert_close(out.logits[i : i + 1], alone.logits, atol=1e-5, rtol=0)
    if count == 2:  # 0 and 3 are the utterances that have both
        both = head(
            *({m: x[[0, 3]] for m, x in given.items()} for given in (features, n)), LABELS[[0, 3]]
        )
        for term in set(out.terms) - {"cross_entropy"}:
            torch.testing.assert_close(out.terms[term], both.terms[term])


@pytest.mark.parametrize("name", ["mgcma", *GRANULARITIES])
def test_gradients_are_finite_without_a_pair(name: str) -> None:
    head = build(name)
    for lengths in ([[5, 2]], [[0, 2], [3, 0]]):
        head.zero_grad()
        out = head(*inputs(head, lengths), LABELS[: len(lengths)])
        assert all(v == 0 for k, v in out.terms.items() if k != "cross_entropy")
        assert out.loss is not None
        out.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_equal_utterances_give_the_loss_of_chance_or_none() -> None:
    for handling, expected in (("keep", math.log(4)), ("drop", 0.0)):
        head = build(dropout=0.0, false_negatives=handling)
        features = {m: torch.full((4, 6, dim), 0.5) for m, dim in head.dims.items()}
        out = head(features, {m: torch.full((4,), 6) for m in head.dims}, LABELS)
        for term in ("distribution", "instance"):
            assert out.terms[term].item() == pytest.approx(expected, abs=1e-5)
        assert out.loss is not None
        out.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_training_lowers_the_alignment_losses() -> None:
    head = build(modules=("distribution", "instance"), dropout=0.0)
    adam = torch.optim.Adam(head.parameters(), 1e-2)
    start = run(head).terms
    for _ in range(25):
        adam.zero_grad()
        loss = run(head).loss
        assert loss is not None
        loss.backward()
        adam.step()
    for term in ("distribution", "instance"):
        assert start[term] > 0.5
        assert run(head).terms[term] < 0.1


def test_a_training_step_is_reproducible() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            head = build(count=3)
            out = head(*inputs(head, [[5, 2, 1], [0, 4, 6], [3, 0, 2], [6, 1, 0]]), LABELS)
            assert out.loss is not None
            out.loss.backward()
            gradients.append([p.grad for p in head.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(*gradients, strict=True):
        assert a is not None
        assert torch.equal(a, b)


def test_losses_are_float32_under_autocast() -> None:
    head = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(head)
    assert out.terms["distribution"].dtype == out.terms["instance"].dtype == torch.float32
    assert all(math.isfinite(term) for term in out.terms.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": ["tokens"]}, "unknown alignment module 'tokens': did you mean 'token'"),
        ({"modules": ["token", "token"]}, "each module at most once"),
        ({"modules": "token"}, r"""\[str, ...\], written as \["a", "b"\], not 'token'"""),
        ({"modules": [1]}, r"must be of type tuple\[str, ...\]"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": 9, "n_attention_heads": 3}, r"width must be even .* not 9"),
        ({"n_attention_heads": 3}, "width 8 cannot be divided among 3 attention heads"),
        ({"n_blocks": 0}, "n_blocks must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"distance_scale": -1.0}, "distance_scale must be positive"),
        ({"distance_scale": math.inf}, "distance_scale must be positive"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"distribution_weight": -1}, "weight of distribution must be finite and at least 0"),
        ({"instance_weight": math.nan}, "weight of instance must be finite and at least 0"),
        ({"distribution_returns": "means"}, "value of distribution_returns 'means': did you mean"),
        ({"instance_similarity": "cos"}, r"instance_similarity 'cos': .*\(known: cosine, dot\)"),
        ({"false_negatives": "dropped"}, "value of false_negatives 'dropped': did you mean 'drop'"),
        (
            {"input_projection": False},
            "width must be that of the encoder of speech: set width to 12, not 8",
        ),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message) as error:
        build(**options)
    assert "\n" not in str(error.value)
