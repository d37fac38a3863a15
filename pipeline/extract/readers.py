"""How each modality's content is read: hashed before the extraction, loaded during it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...cache import Quarantined
from ..corpora import Utterance
from ..encoders import Encoder
from ..encoders.speech import SAMPLE_RATE, Wave
from ..modalities import MODALITIES, source_of
from .audio import BadClipError, decode, read_clip
from .footage import load_pictures, scan_footage
from .scan import Scan, scan_clips, scan_texts


@dataclass(frozen=True)
class Reader:
    """How the content of a modality is read."""

    scan: Callable[[Sequence[Utterance]], Scan]
    """Hash the content of utterances that have some, and look up its length in seconds."""
    load: Callable[[Any, str | None, Encoder[Any]], Any]
    """Turn an utterance's source into what the encoder takes, or raise ``BadClipError``.

    Takes the source (a path, a text or footage), the content hash expected, ``None`` for any, and
    the encoder.
    """
    length: Callable[[Any], str]
    """Describe the length of what was loaded, such as ``25 ms of audio``."""


def scan(utterances: Sequence[Utterance], modality: str) -> Scan:
    """Scan the utterances for a modality; those that lack its content are quarantined."""
    present: list[Utterance] = []
    lacking: list[Utterance] = []
    for utterance in utterances:
        has_content = str(source_of(utterance, modality) or "").strip()
        (present if has_content else lacking).append(utterance)
    result = READERS[modality].scan(present)
    facts = MODALITIES[modality]
    result.quarantined += [
        Quarantined(utterance.id, None, facts.missing_reason, facts.missing)
        for utterance in lacking
    ]
    return result


def load_clip(path: Path, content_hash: str | None = None, _: Encoder[Any] | None = None) -> Wave:
    """Decode a clip to a wave (samples,) float32, mono at 16 kHz.

    Raises:
        BadClipError: the clip cannot be used, or its content has another hash.
    """
    content = read_clip(path)
    if content_hash is not None and hashlib.sha256(content).hexdigest() != content_hash:
        raise BadClipError(
            "changed", f"{path} changed during the run: run the same command again", transient=True
        )
    return decode(content)


READERS: dict[str, Reader] = {
    "speech": Reader(
        scan_clips, load_clip, lambda wave: f"{1000 * len(wave) / SAMPLE_RATE:.0f} ms of audio"
    ),
    "text": Reader(scan_texts, lambda text, *_: text, lambda text: f"{len(text)} characters"),
    "vision": Reader(
        partial(scan_clips, scan_one=scan_footage),
        load_pictures,
        lambda pictures: f"{len(pictures.values)} pictures",
    ),
}
"""Modality → how its content is read."""
