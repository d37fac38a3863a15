"""Which layers a head reads: from the text of ``--layer`` to positions among the cached layers."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...heads.modules.layer_mix import LayerChoice
from ..errors import UsageError, unknown
from ..layers import parse_layers, stored_positions

_WORDS = ("mix", "concat", "last")
_POSITION = "-?[0-9]+"


def layer_positions(
    text: str | None,
    stored: Mapping[str, Sequence[int]],
    defaults: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> dict[str, LayerChoice] | str | None:
    """Return the layers that a head is to read, as heads take them.

    Args:
        text: ``mix``, ``concat``, ``last``, layer numbers such as ``6`` or ``0,6,12``, or one of
            these for each modality, such as ``speech=0,1,2,text=last``. ``None`` is the head's own
            choice.
        stored: modality → the encoder's numbers of the cached layers, as they lie in the arrays.
        defaults: modality → the encoder's numbers that the head reads if ``text`` names no layers
            of the modality; see ``Head.default_layers``.

    Returns:
        ``mix``, ``concat``, ``last``, or modality → one of these or positions in ``stored``.

    Raises:
        UsageError: the text is none of these, or the cache does not hold a layer or a modality.
    """
    low = {modality: numbers for modality, numbers in defaults.items() if modality in stored}
    if text is None:
        return {m: _default(numbers, stored[m], m) for m, numbers in low.items()} or None
    choices = by_modality(text)
    if "" in choices:
        if len(choices) > 1:
            raise UsageError(
                f"layer '{text}': '{choices['']}' has no modality: write "
                f"speech={choices['']}, or one choice for all modalities"
            )
        chosen = parse_layers(choices[""], _WORDS)
        if isinstance(chosen, str):
            return chosen
        choices = dict.fromkeys(stored, choices[""])
    for modality in choices:
        if modality not in stored:
            raise unknown("modality in layer", modality, stored)
    positions = {m: _positions(choice, stored[m], m) for m, choice in choices.items()}
    unnamed = {m: numbers for m, numbers in low.items() if m not in choices}
    return positions | {m: _default(unnamed[m], stored[m], m) for m in unnamed}


def absent_layers(numbers: Sequence[int], stored: Sequence[int]) -> list[int]:
    """Return those of the first layers of an encoder that the cache lacks.

    Layers above the last cached layer do not count: the encoder may not have them.
    """
    return [number for number in numbers if number < max(stored) and number not in stored]


def has_numbers(text: str) -> bool:
    """Whether a text names layers by number, and not only by ``mix`` or ``last``."""
    return re.search("[0-9]", re.sub("[^,]*=", "", text)) is not None


def renumbered(text: str, stored: Mapping[str, Sequence[int]]) -> str:
    """Return an old text, in which layers are named by position, with the encoder's numbers.

    Positions count from the last if they are negative. ``stored`` is as in :func:`layer_positions`.
    """
    choices = by_modality(text)
    alike = "" in choices
    choices = dict.fromkeys(stored, choices[""]) if alike else choices
    numbered = {m: _renumbered(choice, stored[m]) for m, choice in choices.items()}
    if alike and len(set(numbered.values())) == 1:
        return next(iter(numbered.values()))
    return ",".join(f"{m}={choice}" for m, choice in numbered.items())


def by_modality(text: str) -> dict[str, str]:
    """Return modality → its choice; the modality is ``""`` where none is named."""
    choices: dict[str, list[str]] = {}
    modality = ""
    for word in text.split(","):
        name, equals, choice = word.rpartition("=")
        modality = name.strip() if equals else modality
        choices.setdefault(modality, []).append(choice.strip())
    return {modality: ",".join(words) for modality, words in choices.items()}


def _positions(text: str, stored: Sequence[int], modality: str) -> LayerChoice:
    chosen = parse_layers(text, _WORDS)
    if isinstance(chosen, str):
        return chosen
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"layer '{text}': give each layer once")
    return stored_positions(chosen, stored, modality)


def _default(numbers: Sequence[int], stored: Sequence[int], modality: str) -> LayerChoice:
    if absent_layers(numbers, stored):
        wanted, held = (",".join(map(str, layers)) for layers in (numbers, stored))
        raise UsageError(
            f"the head reads layers {wanted} of {modality} by default, and the cache holds layers "
            f"{held}: choose some of these with --layer {modality}={held}, or extract with "
            f"--layers {wanted}"
        )
    return tuple(stored.index(number) for number in numbers if number in stored)


def _renumbered(text: str, stored: Sequence[int]) -> str:
    words = text.split(",")
    return ",".join(str(stored[int(w)]) if re.fullmatch(_POSITION, w) else w for w in words)
