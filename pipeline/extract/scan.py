"""Scan a corpus before the extraction: the hash of each utterance, and the length of its clip."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ...cache import Quarantined
from ..corpora import Utterance
from ..progress import progress
from .audio import BadClipError, probe, read_clip

_THREADS = 8  # on a network file system, reading a file is mostly waiting


@dataclass
class Scan:
    """Hashes and lengths by utterance id, and the utterances that cannot be used."""

    hashes: dict[str, str] = field(default_factory=dict)
    """Utterance id → SHA-256 of its clip or text."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Utterance id → length of its clip; empty for texts."""
    quarantined: list[Quarantined] = field(default_factory=list)
    """Utterances without usable content, each with its reason."""


def scan_clips(utterances: Iterable[Utterance]) -> Scan:
    """Read every clip once: hash it, and read its length from its container."""
    utterances = list(utterances)
    scan = Scan()
    with (
        progress(len(utterances), "reading clips", "clip") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for utterance, result in zip(utterances, pool.map(_scan_clip, utterances), strict=True):
            bar.update()
            if isinstance(result, Quarantined):
                scan.quarantined.append(result)
            else:
                scan.hashes[utterance.id], scan.seconds[utterance.id] = result
    return scan


def scan_texts(utterances: Iterable[Utterance]) -> Scan:
    """Hash every text."""
    scan = Scan()
    for utterance in utterances:
        if utterance.text is None or not utterance.text.strip():
            detail = "the corpus has no text for this utterance"
            scan.quarantined.append(Quarantined(utterance.id, None, "no-text", detail))
        else:
            scan.hashes[utterance.id] = hashlib.sha256(utterance.text.encode()).hexdigest()
    return scan


def _scan_clip(utterance: Utterance) -> tuple[str, float] | Quarantined:
    content_hash = None
    try:
        if utterance.audio is None:
            raise BadClipError("absent", "the corpus has no clip for this utterance")
        content = read_clip(utterance.audio)
        content_hash = hashlib.sha256(content).hexdigest()
        return content_hash, probe(content)
    except BadClipError as error:
        return Quarantined(utterance.id, content_hash, error.reason, error.detail)
