"""How layers are written in every option, preset and run folder: by the encoder's own numbers.

0 is the input of the first transformer layer, n the output of the last. The position of a layer
among the cached layers is never shown to a user.
"""

import re
from collections.abc import Sequence

from .errors import UsageError

LayerNumbers = tuple[int, ...]


def parse_layers(text: str, words: Sequence[str] = ()) -> str | LayerNumbers:
    """Return one of ``words``, such as ``last``, or the layer numbers of a text such as ``0,6,12``.

    The numbers keep their order.

    Raises:
        UsageError: the text is neither, or a number is negative.
    """
    text = text.strip()
    if text in words:
        return text
    parts = [part.strip() for part in text.split(",")]
    if all(re.fullmatch("[0-9]+", part) for part in parts):
        return tuple(map(int, parts))
    negative = any(re.fullmatch("-[0-9]+", part) for part in parts)
    raise UsageError(
        f"layers '{text}': {'a layer number is never negative: ' if negative else ''}"
        f"give {''.join(f'{word}, ' for word in words)}{'or ' if words else ''}"
        "the encoder's own layer numbers, from 0 on, such as 0,6,12"
    )


def layer_numbers(text: str) -> LayerNumbers:
    """Return the layer numbers of a text such as ``0,6,12``.

    Raises:
        UsageError: the text is not a list of layer numbers, or a number is negative.
    """
    numbers = parse_layers(text)
    assert not isinstance(numbers, str)  # noqa: S101 -- no word is allowed
    return numbers


def stored_positions(numbers: Sequence[int], stored: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the positions of layers among the ``stored`` layers of an entry.

    ``name`` is the name of the entry in an error, such as ``speech``.

    Raises:
        UsageError: a layer is not stored.
    """
    for number in numbers:
        if number not in stored:
            raise UsageError(
                f"layer {number} of {name} is not in the cache, which holds layers "
                f"{','.join(map(str, stored))}: choose one of them, or extract with "
                f"--layers {number}"
            )
    return tuple(stored.index(number) for number in numbers)
