"""A first look at every utterance: is there content, what is its hash, how long is it."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ...cache import Quarantined
from ..corpora import Utterance
from ..progress import progress
from .audio import BadClipError, probe, read_clip

_THREADS = 8  # reading from a network file system is mostly waiting


@dataclass
class Scan:
    """What was found: hashes and lengths by utterance id, and what cannot be used."""

    hashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)


def scan_clips(utterances: Iterable[Utterance]) -> Scan:
    """Read every clip once: hash it, and ask its container how long it lasts."""
    utterances = list(utterances)
    scan = Scan()
    with (
        progress(len(utterances), "reading clips", "clip") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for utterance, found in zip(utterances, pool.map(_look, utterances), strict=True):
            bar.update()
            if isinstance(found, Quarantined):
                scan.quarantined.append(found)
            else:
                scan.hashes[utterance.id], scan.seconds[utterance.id] = found
    return scan


def scan_texts(utterances: Iterable[Utterance]) -> Scan:
    """Hash every text."""
    scan = Scan()
    for utterance in utterances:
        assert utterance.text is not None  # noqa: S101 -- only utterances that have a text
        scan.hashes[utterance.id] = hashlib.sha256(utterance.text.encode()).hexdigest()
    return scan


def _look(utterance: Utterance) -> tuple[str, float] | Quarantined:
    content_hash = None
    try:
        assert utterance.audio is not None  # noqa: S101 -- only utterances that have a clip
        content = read_clip(utterance.audio)
        content_hash = hashlib.sha256(content).hexdigest()
        return content_hash, probe(content)
    except BadClipError as error:
        return Quarantined(utterance.id, content_hash, error.reason, error.detail)
