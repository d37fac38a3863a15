"""The utterances that could not be extracted, each with its reason, one JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .atomic import write_file

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


def read_quarantine(entry: Path) -> list[Quarantined]:
    """Read the quarantine of an entry; an entry without one has none."""
    try:
        lines = (entry / _FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Quarantined(**json.loads(line)) for line in lines]


def write_quarantine(entry: Path, quarantined: Iterable[Quarantined]) -> None:
    """Replace the quarantine of an entry."""
    ordered = sorted(quarantined, key=lambda one: one.id)
    # Without ensure_ascii=False every odd character, a line separator too, stays on its line.
    lines = [json.dumps(asdict(one)) + "\n" for one in ordered]
    write_file(entry / _FILE, "".join(lines).encode())
