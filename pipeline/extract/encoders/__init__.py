"""Frozen encoders from transformers, by model type: one registered file a family."""

import json
from typing import Any

from ...encoder_files import find_encoder
from ...errors import UsageError, unknown
from .encoder import Encoder, EncoderSettings
from .speech import SpeechEncoder
from .text import TextEncoder

# Families whose hidden states the tests compare with a direct forward pass.
FAMILIES: dict[str, type[Encoder[Any]]] = {
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), SpeechEncoder),
    **dict.fromkeys(("bert", "distilbert", "electra", "roberta"), TextEncoder),
}

__all__ = ["FAMILIES", "Encoder", "EncoderSettings", "SpeechEncoder", "TextEncoder", "load_encoder"]


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    precision: str = "float32",
    layers: str = "all",
    modality: str | None = None,
) -> Encoder[Any]:
    """Load a frozen encoder from a local folder or from the Hugging Face hub.

    Args:
        name: a folder written by ``save_pretrained``, or a hub name.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        precision: of the forward pass: ``float32``, ``bfloat16`` or ``float16`` (autocast).
        layers: ``all``, ``last`` or numbers such as ``0,6,12``.
        modality: ``speech`` or ``text`` if the encoder must be of that kind.

    Returns:
        An encoder whose ``encode`` takes waves (samples,) float32 mono 16 kHz, or texts.

    Raises:
        UsageError: there is no such encoder, or it is of a family or kind that does not fit.
    """
    files = find_encoder(name)
    config = files.folder / "config.json"
    try:
        model_type = str(json.loads(config.read_bytes())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{config} is no configuration of an encoder: {error!r}") from error
    if model_type not in FAMILIES:
        raise unknown(f"encoder family (of '{name}')", model_type, FAMILIES)
    family = FAMILIES[model_type]
    if modality not in (None, family.modality):
        raise UsageError(
            f"'{name}' is a {family.modality} encoder ({model_type}): give a {modality} encoder"
        )
    return family(EncoderSettings(files, model_type, layers, precision, device))
