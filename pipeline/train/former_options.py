"""What the settings of an older run mean now: options that its head did not have.

A configuration holds only the options that a user gave. Where the default of a new option is not
what a head did before the option, an older run gets the value that is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...heads import HEADS
from ...heads.hbaf.head import LOW_LAYERS, SPEECH
from .layers import absent_layers, by_modality


def former_options(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the head of a run of format 1 or 2 (see ``CONFIG_FORMAT``).

    These are the given ``options`` and ``Head.former_defaults``. And without MRC and MB ``hbf`` had
    no uni-modal loss.
    """
    defaults = dict(HEADS[head].former_defaults) if head in HEADS else {}
    if head == "hbf" and options.get("mrc") == "off" and not options.get("mb", True):
        defaults["own_weight"] = 0.0
    return {**defaults, **options}


def former_layer(
    head: str, layer: str | None, stored: Callable[[], Mapping[str, Sequence[int]]]
) -> str | None:
    """Return ``layer`` of a run of format 1 or 2, in the encoder's numbers.

    By default ``linear`` mixed all layers, and ``hbaf`` read the first four cached layers of
    speech, whatever their numbers are. ``stored`` is called only if the cached layers matter.
    """
    if head == "linear":
        return layer or "mix"
    given = layer is not None and ("=" not in layer or f"{SPEECH}=" in layer)
    if head != "hbaf" or given or SPEECH not in (layers := stored()):
        return layer
    numbers = layers[SPEECH]
    if not absent_layers(LOW_LAYERS, numbers):
        return layer
    low = f"{SPEECH}={','.join(map(str, numbers[: len(LOW_LAYERS)]))}"
    return low if layer is None else f"{layer},{low}"


def former_text_layer(head: str, layer: str | None, modalities: Iterable[str]) -> str | None:
    """Return ``layer`` of a run of format 4 or less.

    By default ``hbaf`` read the last layer of every modality other than speech.
    """
    named = by_modality(layer) if layer else {}
    if head != "hbaf" or "" in named:
        return layer
    last = [f"{m}=last" for m in modalities if m != SPEECH and m not in named]
    return ",".join([layer, *last] if layer else last) or None
