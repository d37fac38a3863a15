"""The utterances that could not be extracted, each with its reason; one JSON object per line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .errors import DamagedError
from .storage.folder import Folder

_FILE = "quarantine.jsonl"


@dataclass(frozen=True)
class Quarantined:
    """An utterance that could not be extracted.

    It is tried again when its content changes.
    """

    id: str
    """The id of the utterance."""
    content_hash: str | None
    """The hash of the content that failed, or ``None`` if there is no content."""
    reason: str
    """One word, such as ``absent``."""
    detail: str
    """A sentence."""


def read_quarantine(entry: Folder) -> dict[str, Quarantined]:
    """Read the quarantine of an entry, by id; empty if the entry has no such file.

    Raises:
        DamagedError: the file is damaged.
    """
    try:
        lines = entry.read(_FILE).decode().splitlines()
        utterances = [_checked(json.loads(line)) for line in lines]
        return {utterance.id: utterance for utterance in utterances}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{entry}/{_FILE} is damaged ({error}): delete it and extract again"
        ) from error


def _checked(fields: Any) -> Quarantined:
    utterance = Quarantined(**fields)
    texts = [utterance.id, utterance.reason, utterance.detail]
    if utterance.content_hash is not None:
        texts.append(utterance.content_hash)
    if not all(type(text) is str for text in texts):
        raise TypeError("a field is not a text")
    return utterance


def write_quarantine(entry: Folder, quarantined: Iterable[Quarantined]) -> None:
    """Replace the quarantine of an entry."""
    ordered = sorted(quarantined, key=lambda utterance: utterance.id)
    # json escapes all but ASCII, so a Unicode line separator in an id does not end a line.
    lines = [json.dumps(asdict(utterance)) + "\n" for utterance in ordered]
    entry.write(_FILE, "".join(lines).encode())
