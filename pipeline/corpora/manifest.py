"""The manifest that the cache keeps of a corpus, so that training needs no corpus on disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from .utterance import Corpus, Utterance

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("id", pa.string()),
    ("audio", pa.string()),
    ("text", pa.string()),
    ("label", pa.string()),
    ("speaker", pa.string()),
    ("session", pa.string()),
    ("dialogue", pa.string()),
    ("turn", pa.int64()),
    ("split", pa.string()),
    ("audio_sha256", pa.string()),
    ("duration", pa.float64()),
]
# Only in a manifest of an extraction of videos, so that the others are as they were before.
_VIDEO_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("video", pa.string()),
    ("video_start", pa.float64()),
    ("video_end", pa.float64()),
    ("video_side", pa.string()),
    ("video_sha256", pa.string()),
]
COLUMNS = tuple(name for name, _ in _COLUMNS)
"""The columns of every manifest; a corpus may have further ones, of texts."""
VIDEO_COLUMNS = tuple(name for name, _ in _VIDEO_COLUMNS)
"""The columns of the manifest of a corpus with videos."""


def to_table(
    corpus: Corpus,
    root: Path,
    sha256: Mapping[str, str],
    seconds: Mapping[str, float],
    video_sha256: Mapping[str, str] | None = None,
) -> Any:
    """Return the manifest of a corpus as a ``pyarrow.Table``.

    The paths of clips below ``root`` are relative to it. ``sha256`` and ``seconds`` give the hash
    and the duration of the clips that were read, by utterance id. ``video_sha256`` gives the hash
    of the videos; with ``None``, because they were not read, there are no columns of videos.
    """
    rows = [
        {
            **asdict(utterance),
            "audio": _relative(utterance.audio, root),
            "audio_sha256": sha256.get(utterance.id),
            "duration": seconds.get(utterance.id),
            "video": _relative(utterance.video, root),
            "video_sha256": (video_sha256 or {}).get(utterance.id),
            **{name: values.get(utterance.id) for name, values in corpus.columns.items()},
        }
        for utterance in corpus.utterances
    ]
    facts = {
        "name": corpus.name,
        "classes": list(corpus.classes),
        "protocol": corpus.protocol,
        "notes": list(corpus.notes),
        "class_sets": corpus.class_sets,
    }
    filmed = video_sha256 is not None and any(u.video is not None for u in corpus.utterances)
    own = ((name, pa.string()) for name in corpus.columns)
    schema = pa.schema([*_COLUMNS, *(_VIDEO_COLUMNS if filmed else ()), *own])
    return pa.Table.from_pylist(rows, schema=schema.with_metadata({"mser": json.dumps(facts)}))


def from_table(table: Any) -> tuple[Corpus, dict[str, str | None]]:
    """Return the corpus of a manifest, and the hash of each utterance's clip by id."""
    facts = json.loads(table.schema.metadata[b"mser"])
    rows = table.to_pylist()
    hashes = {row["id"]: row.pop("audio_sha256") for row in rows}
    columns = {
        name: {row["id"]: value for row in rows if (value := row.pop(name)) is not None}
        for name in table.column_names
        if name not in (*COLUMNS, *VIDEO_COLUMNS)
    }
    utterances = []
    for row in rows:
        row.pop("duration")
        row.pop("video_sha256", None)
        audio, video = row.pop("audio"), row.pop("video", None)
        utterances.append(
            Utterance(
                audio=Path(audio) if audio else None, video=Path(video) if video else None, **row
            )
        )
    corpus = Corpus(
        facts["name"],
        utterances,
        tuple(facts["classes"]),
        facts["protocol"],
        notes=tuple(facts["notes"]),
        class_sets=facts["class_sets"],
        columns=columns,
    )
    return corpus, hashes


def content_hashes(table: Any, source: str) -> dict[str, str | None]:
    """Return the hash of what was read of each utterance, by id; without those not known.

    ``source`` is ``audio`` or ``video``.
    """
    column = f"{source}_sha256"
    if column not in (*COLUMNS, *VIDEO_COLUMNS) or column not in table.column_names:
        return {}
    return dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))


def _relative(path: Path | None, root: Path) -> str | None:
    if path is None:
        return None
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
