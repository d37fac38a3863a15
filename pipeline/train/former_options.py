"""What the settings of an older run mean now: options that its head did not have.

A configuration holds only the options that a user gave. Where the default of a new option is not
what a head did before the option, an older run gets the value that is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...heads.hbaf.head import LOW_LAYERS, SPEECH
from .layers import absent_layers

_OF_HBAF = {"text_context": False, "speakers": False, "unlabelled_turns": False}


def former_options(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the head of a run of format 1 or 2 (see ``CONFIG_FORMAT``).

    - ``hbaf`` had no network over the turns of text, knew no speakers, and did not read turns
      without a label.
    - ``hbf`` had no uni-modal loss without MRC and MB.
    """
    if head == "hbaf":
        return {**_OF_HBAF, **options}
    if head == "hbf" and options.get("mrc") == "off" and not options.get("mb", True):
        return {**options, "own_weight": 0.0}
    return dict(options)


def former_layer(head: str, layer: str | None, stored: Mapping[str, Sequence[int]]) -> str | None:
    """Return ``layer`` of a run of format 1 or 2, in the encoder's numbers.

    ``hbaf`` read the first four cached layers of speech by default, whatever their numbers are.
    """
    given = layer is not None and ("=" not in layer or f"{SPEECH}=" in layer)
    if head != "hbaf" or given or SPEECH not in stored:
        return layer
    numbers = stored[SPEECH]
    if not absent_layers(LOW_LAYERS, numbers):
        return layer
    low = f"{SPEECH}={','.join(map(str, numbers[: len(LOW_LAYERS)]))}"
    return low if layer is None else f"{layer},{low}"
