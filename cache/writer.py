"""Filling one entry: shards are committed one by one, then the entry is published."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from .atomic import TEMPORARY, write_file
from .entry import read_record
from .errors import CacheError
from .identity import FORMAT, EntrySpec
from .index import Index
from .quarantine import Quarantined, read_quarantine, write_quarantine
from .zarr_format import Row, read_rows, write_shard


@dataclass(frozen=True)
class Features:
    """The hidden states of one utterance, (layers, frames, dim), and the hash of its content."""

    id: str
    content_hash: str
    hidden_states: np.ndarray[Any, Any]


@dataclass(frozen=True)
class EntryWriter:
    """Fills one entry. It holds nothing but names, so it may be sent to any process.

    A shard is there for good once :meth:`write_shard` returns, whatever happens later; a reader
    sees it once :meth:`publish` has run. Several writers may fill one entry: a shard never
    overwrites another, and of two copies of an utterance the newer one counts.
    """

    path: Path
    spec: EntrySpec

    def prepare(self) -> None:
        """Make the entry's folder, or check that what lies there is an entry of this identity."""
        (self.path / "shards").mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            read_record(self.path)

    def write_shard(self, number: int, utterances: Sequence[Features]) -> str:
        """Commit one shard and return its name.

        Raises:
            CacheError: an array is not (layers, frames, dim) as the entry's are.
        """
        name = f"{number:05}-{uuid4().hex}"
        arrays, rows, offset = [], [], 0
        for utterance in utterances:
            array = utterance.hidden_states.astype(self.spec.dtype, copy=False)
            if (array.shape[0], array.shape[2]) != (len(self.spec.layers), self.spec.dim):
                raise CacheError(
                    f"features of '{utterance.id}' have the shape {array.shape}, and this entry "
                    f"holds ({len(self.spec.layers)}, frames, {self.spec.dim})"
                )
            rows.append(Row(utterance.id, name, offset, array.shape[1], utterance.content_hash))
            arrays.append(array)
            offset += array.shape[1]
        written = datetime.now(UTC).isoformat()
        write_shard(self.path / "shards" / name, arrays, rows, written)
        return name

    def committed(self) -> dict[str, str]:
        """Return the content hash of each utterance that lies in a shard, published or not."""
        return {row.id: row.content_hash for row in self._rows()}

    def quarantined(self) -> dict[str, Quarantined]:
        """Return the utterances that failed before, by id."""
        return read_quarantine(self.path)

    def quarantine(self, quarantined: Iterable[Quarantined]) -> None:
        """Replace the list of the utterances that could not be extracted."""
        write_quarantine(self.path, quarantined)

    def publish(self, manifest: str, provenance: Mapping[str, Any]) -> None:
        """Let readers see all shards committed so far.

        ``manifest`` is the digest under which :meth:`FeatureCache.write_manifest` keeps the
        dataset's manifest; ``provenance`` is recorded and changes nothing. Where there is nothing
        new, the entry stays as it is, with the provenance of the run that filled it.
        """
        index = Index.of(self._rows())
        name = index.write(self.path)
        with suppress(FileNotFoundError):
            published = read_record(self.path)
            if (published["index"], published["manifest"]) == (name, manifest):
                return
        spec = asdict(self.spec)
        record = {
            "format": FORMAT,
            "key": self.spec.key,
            **spec,
            "utterances": len(index),
            "index": name,
            "manifest": manifest,
            "published": datetime.now(UTC).isoformat(timespec="microseconds"),
            "provenance": provenance,
        }
        write_file(self.path / "entry.json", json.dumps(record, indent=2).encode() + b"\n")
        for old in self.path.glob("index-*.parquet"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def _rows(self) -> Iterable[Row]:
        newest: dict[str, tuple[str, Row]] = {}
        for shard in sorted(self.path.glob("shards/*")):
            if shard.name.startswith(TEMPORARY):
                continue
            rows, written = read_rows(shard)
            for row in rows:
                if row.id not in newest or newest[row.id][0] <= written:
                    newest[row.id] = (written, row)
        return [row for _, row in newest.values()]
