"""Building heads: the registry, the layers, the options, and wrong arguments."""

import math
from typing import Any

import pytest

from mser.heads import HEADS, HeadError, build_head
from mser.heads.linear import LinearProbe
from mser.tests.support.small_heads import SMALL

DIMS = {"speech": 8, "text": 6}


def test_the_registry_has_every_head() -> None:
    names = "bottleneck distribution hbaf hbf instance linear mgcma query token"
    assert sorted(HEADS) == names.split()
    for name, kind in HEADS.items():
        small = {k: v for k, v in SMALL[name].items() if k != "layer"}
        assert type(build_head(name, DIMS, 4, **small)) is kind


@pytest.mark.parametrize(
    ("layer", "speech", "text"),
    [(None, (0, 1, 2), (0, 1)), ("mix", (0, 1, 2), (0, 1)), ("last", (2,), (1,)), (1, (1,), (1,))],
)
def test_the_layers_that_linear_reads(
    layer: str | int | None, speech: tuple[int, ...], text: tuple[int, ...]
) -> None:
    head = build_head("linear", DIMS, 4, {"speech": 3, "text": 2}, layer)
    assert head.layers == {"speech": speech, "text": text}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("hbff", DIMS, 4), {}, r"unknown head 'hbff': did you mean 'hbf'\? \(known: bottleneck, "),
        (("zzz", DIMS, 4), {}, r"unknown head 'zzz' \(known: bottleneck, .*, token\)"),
        (
            ("linear", DIMS, 4),
            {"droput": 0.1},
            r"did you mean 'dropout'\? \(known: dropout, pooling\)",
        ),
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
        (("hbf", DIMS, 4), {"depths": 0.5}, r"must be of type tuple\[float, ...\], .*, not 0.5"),
        (
            ("hbf", DIMS, 4),
            {"depths": "0.5,1"},
            r"written as \[1, 2\], not '0.5,1'",
        ),
        (("hbf", DIMS, 4), {"depths": [0.5, "1"]}, r"must be of type tuple\[float, ...\]"),
        (("hbf", DIMS, 4), {"depths": []}, "depths must be one or more"),
        (("hbf", DIMS, 4), {"depths": [0.5, 1.5]}, "depths must be one or more"),
        (("hbf", DIMS, 4), {"dropout": -0.1}, "dropout must be"),
        (("hbf", DIMS, 4), {"temperature": 0.0}, "temperature must be positive"),
        (("hbf", DIMS, 4), {"intra_weight": -1}, "intra_modal must be finite and at least 0"),
        (("hbf", DIMS, 4), {"inter_weight": math.inf}, "inter_modal must be finite and at least 0"),
        (("hbf", DIMS, 4, None, "mix"), {}, "use its option depths, not layer"),
        (("hbf", DIMS, 4), {"mrc": "sclae"}, "unknown mrc 'sclae': did you mean 'scale'"),
        (("hbf", DIMS, 4), {"joint_steps": 0}, "joint_steps must be at least 1, not 0"),
        (("hbf", DIMS, 4), {"beta": 1.5}, r"beta must be in \[0, 1\], not 1.5"),
        (("hbf", DIMS, 4), {"beta": math.nan}, r"beta must be in \[0, 1\]"),
        (
            ("hbf", DIMS, 4),
            {"agreement": -1},
            "the weight of agreement must be finite and at least 0",
        ),
        (("hbf", DIMS, 4), {"masking": 2}, r"the rate of modality masking must be in \[0, 1\]"),
        (("hbf", DIMS, 4), {"own_weight": 0}, "own_weight must be above 0 because mb needs it"),
        (
            ("hbf", {"text": 6}, 4),
            {"own_weight": 0, "mb": False, "dropout": 0},
            "own_weight or beta must be above 0: otherwise the input projections are not trained",
        ),
        (("bottleneck", DIMS, 4), {"n_blocks": 0}, "n_blocks must be at least 1, not 0"),
        (("bottleneck", DIMS, 4), {"width": 10}, "cannot be divided among 4 attention heads"),
        (("bottleneck", DIMS, 4), {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (
            ("linear", DIMS, 4, None, 1),
            {},
            "layer 1 is out of range: a position among the cached layers is in -1 .. 0",
        ),
        (("linear", DIMS, 4, None, "lats"), {}, "unknown layer 'lats': did you mean 'last'"),
        (("linear", {}, 4), {}, "at least one modality"),
        (("linear", {"a.b": 8}, 4), {}, "cannot be called 'a.b'"),
        (("linear", {"items": 8}, 4), {}, "cannot be called 'items'"),
        (("linear", {"": 8}, 4), {}, "cannot be called ''"),
        (("linear", {"text": 0}, 4), {}, "width of text must be at least 1"),
        (("linear", DIMS, 1), {}, "n_classes must be at least 2"),
        (
            ("linear", DIMS, 4, {"speech": 2}),
            {},
            "n_layers must have the modalities speech, text, but has speech",
        ),
        (("linear", DIMS, 4, {"speech": 2, "text": 0}), {}, "cached layers of text must be"),
    ],
)
def test_wrong_arguments_are_errors(
    arguments: tuple[object, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HeadError, match=message) as error:
        build_head(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_constructor_with_another_signature_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Short(LinearProbe):
        def __init__(self, dims: dict[str, int], n_classes: int) -> None: ...

    monkeypatch.setitem(HEADS, "short", Short)
    with pytest.raises(HeadError, match=r"the head short cannot be built .*n_layers and layer"):
        build_head("short", {"speech": 4}, 2)
