"""Frozen encoders by model type: one file for each family."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import PipelineError, UsageError, unknown
from ..option_texts import with_options
from ..plugins import Plugins, is_spec
from . import torchaudio_bundle
from .checkpoint_files import EncoderFiles, find_encoder
from .decoder import DecoderEncoder
from .egemaps import Egemaps
from .encoder import THREAD_SAFE, Encoder, EncoderSettings
from .feature_extractor import (
    ExtractorEncoder,
    ExtractorFiles,
    FeatureExtractor,
    extractor_files,
)
from .frame_choice import DEFAULT_FRAMES, FrameChoice
from .frame_means import ALL_FRAMES, FrameMeans
from .log_mel import LogMel
from .speech import SpeechEncoder
from .text import TextEncoder
from .torchaudio_bundle import BundleEncoder
from .videomae import VideoMAEEncoder
from .vit import ViTEncoder
from .wav2vec2 import Wav2Vec2Encoder
from .wav2vec2_bert import Wav2Vec2BertEncoder
from .whisper import WhisperEncoder

# Tests compare the hidden states of each family with a direct forward pass, alone and in batches.
FAMILIES: dict[str, type[Encoder[Any]] | type[FeatureExtractor]] = {
    **dict.fromkeys(
        ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm"),
        Wav2Vec2Encoder,
    ),
    "wav2vec2-bert": Wav2Vec2BertEncoder,
    "whisper": WhisperEncoder,
    torchaudio_bundle.MODEL_TYPE: BundleEncoder,
    **dict.fromkeys(
        ("bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet"),
        TextEncoder,
    ),
    "modernbert": TextEncoder,
    **dict.fromkeys(
        ("gemma3_text", "gpt2", "llama", "mistral", "qwen2", "qwen3"),
        DecoderEncoder,
    ),
    **dict.fromkeys(("roberta", "xlm-roberta"), TextEncoder),
    **dict.fromkeys(
        ("clip", "clip_vision_model", "dinov2", "dinov2_with_registers", "vit"), ViTEncoder
    ),
    "videomae": VideoMAEEncoder,
    "log-mel": LogMel,
    "egemaps": Egemaps,
}


def _accepted(value: Any, _: str) -> type[Encoder[Any]] | type[FeatureExtractor] | None:
    fits = isinstance(value, type) and issubclass(value, Encoder | FeatureExtractor)
    return value if fits else None


ENCODER_PLUGINS = Plugins(
    "encoder",
    "mser.encoders",
    FAMILIES,
    _accepted,
    "a subclass of FeatureExtractor",
    "--speech-encoder",
)

__all__ = [
    "ENCODER_PLUGINS",
    "FAMILIES",
    "THREAD_SAFE",
    "Encoder",
    "EncoderSettings",
    "FeatureExtractor",
    "FrameChoice",
    "FrameMeans",
    "SpeechEncoder",
    "TextEncoder",
    "Wav2Vec2Encoder",
    "check_recorded",
    "encoder_of",
    "load_encoder",
    "names_folder",
]


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    precision: str = "float32",
    layers: str = "all",
    max_seconds: float = 30.0,
    frames: FrameChoice = DEFAULT_FRAMES,
    means: FrameMeans = ALL_FRAMES,
    modality: str | None = None,
) -> Encoder[Any]:
    """Load a frozen encoder from a folder, the Hugging Face hub, torchaudio, or a plug-in.

    Args:
        name: a folder written by ``save_pretrained``, a hub name, ``torchaudio:WAV2VEC2_BASE``, or
            a feature extractor: ``log-mel``, ``log-mel(n_mels=40)``, ``egemaps``, one of an
            installed package, or ``file.py:Class``.
        device: ``auto`` (a GPU if this machine has one), ``cpu`` or ``cuda``.
        precision: of the forward pass: ``float32``, ``bfloat16`` or ``float16`` (autocast), or on a
            GPU ``tf32``.
        layers: ``all``, ``last`` or numbers such as ``0,6,12``.
        max_seconds: longer audio is encoded in overlapping windows of this length.
        frames: which frames of a video an extraction encodes; default 5 a second, uncropped.
        means: which frames ``encode`` gives as one, their mean; default: every frame.
        modality: ``speech``, ``text`` or ``vision`` if the encoder must be of this modality.

    Returns:
        An encoder whose ``encode`` takes waves (samples,) float32 mono 16 kHz, texts, or videos:
        sequences of frames (height, width, 3) uint8, RGB.

    Raises:
        UsageError: the encoder does not exist, or its family or modality is not supported here.
    """
    files, model_type = _find(str(name))
    _admit_family(name, model_type)
    family = FAMILIES[model_type]
    if modality not in (None, family.modality):
        fit = ", ".join(sorted(key for key, kind in FAMILIES.items() if kind.modality == modality))
        raise UsageError(
            f"'{name}' is a {family.modality} encoder ({model_type}): give a {modality} encoder "
            f"(model types: {fit})"
        )
    return encoder_of(
        EncoderSettings(files, model_type, layers, precision, device, max_seconds, frames, means)
    )


def encoder_of(settings: EncoderSettings) -> Encoder[Any]:
    """Return the encoder of settings that :func:`load_encoder` made, perhaps in another process.

    Raises:
        UsageError: the code of a plug-in is not here.
        PipelineError: the code of a plug-in has changed since then.
    """
    if settings.model_type not in FAMILIES:  # in a worker
        ENCODER_PLUGINS.admit(settings.model_type)
    family: Any = FAMILIES[settings.model_type]  # its kind follows from the files
    origin = ENCODER_PLUGINS.origin(settings.model_type)
    encoder: Encoder[Any]
    if isinstance(settings.files, ExtractorFiles):
        encoder = ExtractorEncoder(settings, family)
        if settings.files.origin != origin:
            raise PipelineError(
                f"the code of {settings.model_type} changed while it was used, or differs on this "
                "machine: run the same command again"
            )
    else:
        encoder = family(settings)
    encoder.code = origin
    return encoder


def names_folder(name: str) -> bool:
    """Return whether a name is the path of a folder that exists, and not a feature extractor's.

    ``log-mel`` is mser's own, or that of an installed package, also where a folder has that name;
    the folder is ``./log-mel``.

    Raises:
        UsageError: the code of an installed package cannot be loaded.
    """
    if not Path(name).expanduser().is_dir():  # its name may have brackets
        return False
    kind = name.partition("(")[0]
    if kind in ENCODER_PLUGINS.installed():
        ENCODER_PLUGINS.admit(kind)
    return not issubclass(FAMILIES.get(kind, Encoder), FeatureExtractor)


def check_recorded(source: str, identity: Mapping[str, Any], modality: str, where: str) -> None:
    """Check an encoder that a cache names before it is loaded, if its code is of a plug-in.

    Args:
        source: the name of the encoder in the cache.
        identity: the identity of the features.
        modality: the modality of the encoder.
        where: the entry, for messages.

    Raises:
        UsageError: the user has not named the code before, or it has changed.
    """
    if source.startswith(torchaudio_bundle.PREFIX) or names_folder(source):
        return
    kind, _ = with_options(source)
    if is_spec(kind) or kind in ENCODER_PLUGINS.installed():
        named = {"spec": kind, "sha256": identity.get("code"), **_distribution(identity)}
        ENCODER_PLUGINS.admit_recorded(kind, named, where, f"--{modality}-encoder")


def _distribution(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: identity[key] for key in ("distribution",) if key in identity}


def _admit_family(name: str, model_type: str) -> None:
    if model_type in FAMILIES:
        return
    if model_type not in ENCODER_PLUGINS.installed():
        raise unknown(f"encoder family (of '{name}')", model_type, FAMILIES)
    ENCODER_PLUGINS.admit(model_type)


def _extractor(name: str) -> ExtractorFiles | None:
    """Return what stands for the files of a feature extractor; ``None`` for another encoder."""
    if names_folder(name):
        return None
    kind, parameters = with_options(name)
    if is_spec(kind) or kind.endswith(".py") or kind in ENCODER_PLUGINS.installed():
        kind = ENCODER_PLUGINS.admit(kind)
    family = FAMILIES.get(kind)
    if family is None or not issubclass(family, FeatureExtractor):
        if is_spec(kind):
            raise UsageError(
                f"{kind} is a family of encoders with weights: give the folder of the weights, and "
                "let a package name the family in its entry points 'mser.encoders'"
            )
        return None
    return extractor_files(kind, ENCODER_PLUGINS.origin(kind), parameters)


def _find(name: str) -> tuple[EncoderFiles, str]:
    if name.startswith(torchaudio_bundle.PREFIX):
        return torchaudio_bundle.find_bundle(name), torchaudio_bundle.MODEL_TYPE
    if (extractor := _extractor(name)) is not None:
        return extractor, extractor.kind
    try:
        files = find_encoder(name)
    except UsageError as error:
        extractors = [kind for kind in FAMILIES if issubclass(FAMILIES[kind], FeatureExtractor)]
        near = get_close_matches(name.partition("(")[0], extractors, n=1, cutoff=0.8)
        hint = f"; did you mean the feature extractor '{near[0]}'?" if near else ""
        raise UsageError(f"{error}{hint}") from error
    config = files.folder / "config.json"
    try:
        return files, str(json.loads(config.read_bytes())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{config} is not the configuration of an encoder: {error!r}") from error
