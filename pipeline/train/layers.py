"""Which cached layers a head is to read, as the command line says it."""

import re

from ...heads.modules.layer_mix import LayerChoice, LayerChoices


def parsed_layers(text: str | None) -> LayerChoices | None:
    """Return the layers that a text names, or ``None`` for the head's own choice.

    ``mix``, ``last`` and ``6`` are as they are, ``0,6,12`` are several to be mixed, and
    ``speech=0,1,2,text=last`` names them for each modality. Whether they are there is for the head
    to say.
    """
    if text is None:
        return None
    found: dict[str, list[str]] = {}
    modality = ""
    for word in text.split(","):
        name, equals, value = word.rpartition("=")
        modality = name.strip() if equals else modality
        found.setdefault(modality, []).append(value.strip())
    layers = {name: _layer(values) for name, values in found.items()}
    return layers[""] if set(layers) == {""} else layers


def _layer(words: list[str]) -> LayerChoice:
    numbers = [int(word) for word in words if re.fullmatch("-?[0-9]+", word)]
    if len(numbers) < len(words):
        return ",".join(words)
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
