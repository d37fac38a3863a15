"""Building heads: which layers they read, which options they know, and what they refuse."""

import math
from typing import Any

import pytest
import torch

from mser.heads import HEADS, HeadError, build_head, hbf
from mser.heads.contrastive import info_nce

DIMS = {"speech": 8, "text": 6}


def test_registry() -> None:
    assert sorted(HEADS) == ["hbf", "linear"]
    for name, kind in HEADS.items():
        assert type(build_head(name, DIMS, 4)) is kind


@pytest.mark.parametrize(
    ("layer", "speech", "text"),
    [(None, (0, 1, 2), (0, 1)), ("mix", (0, 1, 2), (0, 1)), ("last", (2,), (1,)), (1, (1,), (1,))],
)
def test_linear_reads(
    layer: str | int | None, speech: tuple[int, ...], text: tuple[int, ...]
) -> None:
    head = build_head("linear", DIMS, 4, {"speech": 3, "text": 2}, layer)
    assert head.layers == {"speech": speech, "text": text}


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
    ],
)
def test_hbf_reads(options: dict[str, Any], n_layers: int, layers: tuple[int, ...]) -> None:
    head = build_head("hbf", {"speech": 8}, 4, {"speech": n_layers}, width=8, **options)
    assert head.layers == {"speech": layers}


def test_hbf_stages_read_their_own_layer() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", {"speech": 8}, 4, {"speech": 13}, width=8, depths=(1.0, 0.0)).eval()
    x = torch.randn(1, 2, 5, 8)
    deep, shallow = head.stem_tokens({"speech": x})["speech"]  # type: ignore[operator]
    x[:, 0] = 0  # position 0 of the batch is layer 0, which the second stage reads
    deep_after, shallow_after = head.stem_tokens({"speech": x})["speech"]  # type: ignore[operator]
    assert torch.equal(deep, deep_after)
    assert not torch.equal(shallow, shallow_after)


def test_the_hierarchy_costs_no_parameters() -> None:
    count = [
        sum(p.numel() for p in build_head("hbf", DIMS, 4, hierarchical=h).parameters())
        for h in (True, False)
    ]
    assert count[0] == count[1]


@pytest.mark.parametrize(
    ("count", "training", "options", "terms"),
    [
        (2, True, {}, {"intra_modal", "inter_modal"}),
        (2, True, {"supervised": True}, {"intra_modal", "inter_modal"}),
        (2, True, {"intra_weight": 0}, {"inter_modal"}),
        (2, True, {"inter_weight": 0}, {"intra_modal"}),
        (2, True, {"intra_weight": 0, "inter_weight": 0}, set()),
        (2, True, {"dropout": 0}, {"inter_modal"}),
        (2, False, {}, {"inter_modal"}),
        (1, True, {}, {"intra_modal"}),
        (1, False, {}, set()),
    ],
)
def test_hbf_switches(count: int, training: bool, options: dict[str, Any], terms: set[str]) -> None:
    dims = dict(list(DIMS.items())[:count])
    head = build_head("hbf", dims, 4, width=8, **options).train(training)
    features = {m: torch.randn(3, 5, d) for m, d in dims.items()}
    out = head(features, {m: torch.tensor([5, 2, 1]) for m in dims}, torch.tensor([0, 1, 1]))
    assert set(out.terms) == {"cross_entropy"} | terms
    assert all(math.isfinite(v) for v in out.terms.values())


def test_supervised_changes_the_intra_modal_term_only() -> None:
    values = []
    for supervised in (False, True):
        torch.manual_seed(0)
        head = build_head("hbf", {"speech": 8}, 4, width=8, supervised=supervised)
        x, n = {"speech": torch.randn(4, 5, 8)}, {"speech": torch.tensor([5, 2, 1, 4])}
        values.append(head(x, n, torch.tensor([0, 1, 1, 0])).terms)
    assert values[0]["cross_entropy"] == values[1]["cross_entropy"]
    assert values[0]["intra_modal"] != values[1]["intra_modal"]


def test_contrast_is_between_two_passes_of_the_stems_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
        seen.append((a, b))
        return info_nce(a, b, temperature)

    monkeypatch.setattr(hbf, "info_nce", spy)
    head = build_head("hbf", DIMS, 4, width=8)
    x = {m: torch.randn(3, 5, d) for m, d in DIMS.items()}
    head(x, {m: torch.tensor([5, 2, 1]) for m in DIMS}, torch.tensor([0, 1, 1]))
    (speech, speech_again), (text, text_again), across = seen
    assert not torch.equal(speech, speech_again)
    assert not torch.equal(text, text_again)
    assert across[0] is speech
    assert across[1] is text
    names, parameters = zip(*head.named_parameters(), strict=True)
    gradients = torch.autograd.grad(speech.sum(), parameters, allow_unused=True)
    moved = {name for name, g in zip(names, gradients, strict=True) if g is not None}
    own = ("stems.speech.", "projections.speech.")
    assert moved == {name for name in names if name.startswith(own)}


def test_dropout_views_of_long_utterances_differ() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", {"speech": 8}, 4, width=64)
    hidden = {"speech": torch.randn(1, 1, 2000, 8)}
    first, second = (head.stem_tokens(hidden)["speech"][0].mean(1) for _ in range(2))  # type: ignore[operator]
    dropped = [(x == 0).float().mean().item() for x in (first, second)]
    assert all(0 < share < 0.3 for share in dropped)
    assert not torch.equal(first == 0, second == 0)


def test_modalities_of_hbf_meet_through_bottlenecks() -> None:
    torch.manual_seed(0)
    head = build_head("hbf", DIMS, 4, width=8).eval()
    x = {m: torch.randn(1, 5, d) for m, d in DIMS.items()}
    n = {m: torch.tensor([5]) for m in DIMS}
    hidden, masks = head.inputs(x, n)
    before = head.fuse(head.stem_tokens(hidden), masks)  # type: ignore[operator]
    hidden["speech"] = -hidden["speech"]
    after = head.fuse(head.stem_tokens(hidden), masks)  # type: ignore[operator]
    text = slice(8, 16)  # [speech ; text ; bottlenecks]
    assert not torch.allclose(before[:, text], after[:, text])  # by way of two earlier stages
    single = build_head("hbf", DIMS, 4, width=8, depths=(1.0,)).eval()
    after = single.fuse(single.stem_tokens(hidden), masks)  # type: ignore[operator]
    hidden["speech"] = -hidden["speech"]
    before = single.fuse(single.stem_tokens(hidden), masks)  # type: ignore[operator]
    assert torch.equal(before[:, text], after[:, text])  # one stage: nothing has come across yet


def test_fusion_is_its_equations() -> None:
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
    fused = head.fuse(head.stem_tokens(hidden), masks)  # type: ignore[operator]
    torch.testing.assert_close(fused, torch.cat(parts, dim=1))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("hbff", DIMS, 4),
            {},
            r"unknown head 'hbff': did you mean 'hbf'\? \(known: hbf, linear\)",
        ),
        (("zzz", DIMS, 4), {}, r"unknown head 'zzz': \(known: hbf, linear\)"),
        (("linear", DIMS, 4), {"droput": 0.1}, r"did you mean 'dropout'\? \(known: dropout\)"),
        (("hbf", DIMS, 4), {"witdh": 8}, r"unknown hbf option 'witdh': did you mean 'width'\?"),
        (("linear", DIMS, 4), {"dropout": "0.1"}, "must be of type float, not '0.1'"),
        (("linear", DIMS, 4), {"dropout": True}, "must be of type float, not True"),
        (("linear", DIMS, 4), {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (("linear", DIMS, 4), {"dropout": math.nan}, r"dropout must be in \[0, 1\)"),
        (("hbf", DIMS, 4), {"width": 8.0}, "must be of type int, not 8.0"),
        (("hbf", DIMS, 4), {"width": True}, "must be of type int, not True"),
        (("hbf", DIMS, 4), {"width": 10}, "width 10 cannot be divided among 4 attention heads"),
        (("hbf", DIMS, 4), {"width": 0}, "width must be at least 1"),
        (("hbf", DIMS, 4), {"n_attention_heads": 0}, "among 0 attention heads"),
        (("hbf", DIMS, 4), {"n_bottlenecks": 0}, "n_bottlenecks must be at least 1"),
        (("hbf", DIMS, 4), {"projection": 0}, "projection must be at least 1"),
        (("hbf", DIMS, 4), {"supervised": 1}, "must be of type bool, not 1"),
        (("hbf", DIMS, 4), {"depths": 0.5}, r"must be of type tuple\[float, ...\], not 0.5"),
        (("hbf", DIMS, 4), {"depths": [0.5, "1"]}, r"must be of type tuple\[float, ...\]"),
        (("hbf", DIMS, 4), {"depths": []}, "depths must be one or more"),
        (("hbf", DIMS, 4), {"depths": [0.5, 1.5]}, "depths must be one or more"),
        (("hbf", DIMS, 4), {"dropout": -0.1}, "dropout must be"),
        (("hbf", DIMS, 4), {"temperature": 0.0}, "temperature must be positive"),
        (("hbf", DIMS, 4), {"intra_weight": -1}, "intra_modal must not be negative"),
        (("hbf", DIMS, 4), {"inter_weight": math.inf}, "inter_modal must not be negative"),
        (("hbf", DIMS, 4, None, "mix"), {}, "use its option depths, not layer"),
        (("linear", DIMS, 4, None, 1), {}, "layer 1 is out of range: only 1 are cached"),
        (("linear", DIMS, 4, None, "lats"), {}, "unknown layer 'lats': did you mean 'last'"),
        (("linear", {}, 4), {}, "at least one modality"),
        (("linear", {"a.b": 8}, 4), {}, "cannot be called 'a.b'"),
        (("linear", {"items": 8}, 4), {}, "cannot be called 'items'"),
        (("linear", {"": 8}, 4), {}, "cannot be called ''"),
        (("linear", {"text": 0}, 4), {}, "width of text must be at least 1"),
        (("linear", DIMS, 1), {}, "n_classes must be at least 2"),
        (("linear", DIMS, 4, {"speech": 2}), {}, "n_layers must name speech, text"),
        (("linear", DIMS, 4, {"speech": 2, "text": 0}), {}, "cached layers of text must be"),
    ],
)
def test_refuses(arguments: tuple[object, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message) as error:
        build_head(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
