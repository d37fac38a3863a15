"""Scan a corpus before the extraction: the hash of each utterance, and the length of its clip."""

import hashlib
from collections.abc import Callable, Iterable
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


def scan_clips(
    utterances: Iterable[Utterance],
    scan_one: Callable[[Utterance], tuple[str, float] | Quarantined] | None = None,
) -> Scan:
    """Read every clip once: hash it, and read its length from its container.

    ``scan_one`` returns the hash and the length in seconds of an utterance's clip, or why it cannot
    be used; by default those of its audio.
    """
    utterances = list(utterances)
    scan = Scan()
    with (
        progress(len(utterances), "reading clips", "clip") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        results = pool.map(scan_one or _scan_audio, utterances)
        for utterance, result in zip(utterances, results, strict=True):
            bar.update()
            if isinstance(result, Quarantined):
                scan.quarantined.append(result)
            else:
                scan.hashes[utterance.id], scan.seconds[utterance.id] = result
    return scan


def scan_texts(utterances: Iterable[Utterance]) -> Scan:
    """Hash every text."""
    hashes = {
        utterance.id: hashlib.sha256(str(utterance.text).encode()).hexdigest()
        for utterance in utterances
    }
    return Scan(hashes)


def _scan_audio(utterance: Utterance) -> tuple[str, float] | Quarantined:
    content_hash = None
    try:
        assert utterance.audio is not None  # noqa: S101 -- only utterances that have a clip
        content = read_clip(utterance.audio)
        content_hash = hashlib.sha256(content).hexdigest()
        return content_hash, probe(content)
    except BadClipError as error:
        return Quarantined(utterance.id, content_hash, error.reason, error.detail)
