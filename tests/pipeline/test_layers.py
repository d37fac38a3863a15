"""Layers are written in one way: by the encoder's own numbers."""

import pytest

from mser.pipeline.errors import UsageError
from mser.pipeline.layers import layer_numbers, parse_layers, stored_positions


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", "all"),
        (" last ", "last"),
        ("0", (0,)),
        ("0,6,12", (0, 6, 12)),
        ("12, 0", (12, 0)),
    ],
)
def test_a_word_or_numbers_in_their_order(text: str, layers: str | tuple[int, ...]) -> None:
    assert parse_layers(text, ("all", "last")) == layers


@pytest.mark.parametrize(
    "text", ["", "first", "mix", "0,", "0;1", "1.5", "last,0", "²", "+1", "--1"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_layers(text, ("all", "last"))
    assert str(raised.value) == (
        f"layers '{text}': give all, last, or the encoder's own layer numbers, from 0 on, "
        "such as 0,6,12"
    )


@pytest.mark.parametrize("text", ["-1", "0,-2"])
def test_negative_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a layer number is never negative: give last, or the"):
        parse_layers(text, ("last",))
    with pytest.raises(UsageError, match="a layer number is never negative: give the encoder's"):
        layer_numbers(text)


def test_positions_are_those_among_the_stored_layers() -> None:
    assert stored_positions((12, 0), (0, 6, 12), "speech") == (2, 0)


def test_a_layer_that_is_not_stored_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as raised:
        stored_positions((6, 5), (0, 6, 12), "speech")
    assert str(raised.value) == (
        "layer 5 of speech is not in the cache, which holds layers 0,6,12: choose one of them, or "
        "extract with --layers 5"
    )
