"""The utterances that could not be extracted, each with its reason, one JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .errors import CacheError
from .storage.folder import Folder

_FILE = "quarantine.jsonl"


@dataclass(frozen=True)
class Quarantined:
    """An utterance that could not be extracted.

    ``content_hash`` is the hash of the content that failed, or ``None`` where there is none; when
    the content changes, the utterance is tried again. ``reason`` is a word (``absent``), ``detail``
    a sentence.
    """

    id: str
    content_hash: str | None
    reason: str
    detail: str


def read_quarantine(entry: Folder) -> dict[str, Quarantined]:
    """Read the quarantine of an entry, by id; an entry without one has none.

    Raises:
        CacheError: the file is damaged.
    """
    try:
        lines = entry.read(_FILE).decode().splitlines()
        return {one.id: one for one in (_checked(json.loads(line)) for line in lines)}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise CacheError(
            f"{entry}/{_FILE} is damaged: delete it, and extract again ({error})"
        ) from error


def _checked(fields: Any) -> Quarantined:
    one = Quarantined(**fields)
    texts = (one.id, one.reason, one.detail, "" if one.content_hash is None else one.content_hash)
    if not all(type(text) is str for text in texts):
        raise TypeError("a field is no text")
    return one


def write_quarantine(entry: Folder, quarantined: Iterable[Quarantined]) -> None:
    """Replace the quarantine of an entry."""
    ordered = sorted(quarantined, key=lambda one: one.id)
    # json escapes what is not ASCII, so that an odd line separator in an id does not end a line.
    lines = [json.dumps(asdict(one)) + "\n" for one in ordered]
    entry.write(_FILE, "".join(lines).encode())
