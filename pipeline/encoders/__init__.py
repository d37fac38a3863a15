"""Frozen encoders by model type: one file for each family."""

import json
from typing import Any

from ..errors import UsageError, unknown
from . import torchaudio_bundle
from .checkpoint_files import EncoderFiles, find_encoder
from .encoder import THREAD_SAFE, Encoder, EncoderSettings
from .speech import SpeechEncoder
from .text import TextEncoder
from .torchaudio_bundle import BundleEncoder
from .wav2vec2 import Wav2Vec2Encoder
from .whisper import WhisperEncoder

# Tests compare the hidden states of each family with a direct forward pass, alone and in batches.
FAMILIES: dict[str, type[Encoder[Any]]] = {
    **dict.fromkeys(
        ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm"),
        Wav2Vec2Encoder,
    ),
    "whisper": WhisperEncoder,
    torchaudio_bundle.MODEL_TYPE: BundleEncoder,
    **dict.fromkeys(
        ("bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet"),
        TextEncoder,
    ),
    **dict.fromkeys(("roberta", "xlm-roberta"), TextEncoder),
}

__all__ = [
    "FAMILIES",
    "THREAD_SAFE",
    "Encoder",
    "EncoderSettings",
    "SpeechEncoder",
    "TextEncoder",
    "Wav2Vec2Encoder",
    "load_encoder",
]


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    precision: str = "float32",
    layers: str = "all",
    max_seconds: float = 30.0,
    modality: str | None = None,
) -> Encoder[Any]:
    """Load a frozen encoder from a local folder, from the Hugging Face hub, or from torchaudio.

    Args:
        name: a folder written by ``save_pretrained``, a hub name, or ``torchaudio:WAV2VEC2_BASE``.
        device: ``auto`` (a GPU if this machine has one), ``cpu`` or ``cuda``.
        precision: of the forward pass: ``float32``, ``bfloat16`` or ``float16`` (autocast).
        layers: ``all``, ``last`` or numbers such as ``0,6,12``.
        max_seconds: longer audio is encoded in overlapping windows of this length.
        modality: ``speech`` or ``text`` if the encoder must be of this modality.

    Returns:
        An encoder whose ``encode`` takes waves (samples,) float32 mono 16 kHz, or texts.

    Raises:
        UsageError: the encoder does not exist, or its family or modality is not supported here.
    """
    files, model_type = _find(name)
    if model_type not in FAMILIES:
        raise unknown(f"encoder family (of '{name}')", model_type, FAMILIES)
    family = FAMILIES[model_type]
    if modality not in (None, family.modality):
        fit = ", ".join(sorted(key for key, kind in FAMILIES.items() if kind.modality == modality))
        raise UsageError(
            f"'{name}' is a {family.modality} encoder ({model_type}): give a {modality} encoder "
            f"(model types: {fit})"
        )
    return family(EncoderSettings(files, model_type, layers, precision, device, max_seconds))


def _find(name: str) -> tuple[EncoderFiles, str]:
    if name.startswith(torchaudio_bundle.PREFIX):
        return torchaudio_bundle.find_bundle(name), torchaudio_bundle.MODEL_TYPE
    files = find_encoder(name)
    config = files.folder / "config.json"
    try:
        return files, str(json.loads(config.read_bytes())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{config} is not the configuration of an encoder: {error!r}") from error
