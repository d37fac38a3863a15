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
            if (*array.shape[:1], *array.shape[2:]) != (len(self.spec.layers), self.spec.dim):
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
        return {row.id: row.content_hash for row in self._rows(self._shards())}

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
        while not self._publish(manifest, provenance):
            pass  # another writer published meanwhile: do it again with what it has added

    def _publish(self, manifest: str, provenance: Mapping[str, Any]) -> bool:
        shards = self._shards()
        index = Index.of(self._rows(shards))
        name = index.write(self.path)
        replaced = None
        with suppress(FileNotFoundError):
            published = read_record(self.path)
            replaced = published["index"]
            if (replaced, published["manifest"]) == (name, manifest):
                return True
        record = {
            "format": FORMAT,
            "key": self.spec.key,
            **asdict(self.spec),
            "utterances": len(index),
            "index": name,
            "manifest": manifest,
            "published": datetime.now(UTC).isoformat(timespec="microseconds"),
            "provenance": provenance,
        }
        write_file(self.path / "entry.json", json.dumps(record, indent=2).encode() + b"\n")
        if replaced not in (None, name):
            (self.path / replaced).unlink(missing_ok=True)
        return (self.path / name).exists() and self._shards() == shards

    def _shards(self) -> list[Path]:
        shards = self.path.glob("shards/*")
        return sorted(shard for shard in shards if not shard.name.startswith(TEMPORARY))

    def _rows(self, shards: Iterable[Path]) -> Iterable[Row]:
        newest: dict[str, tuple[str, Row]] = {}
        for shard in shards:
            rows, written = read_rows(shard)
            for row in rows:
                if row.id not in newest or newest[row.id][0] <= written:
                    newest[row.id] = (written, row)
        return [row for _, row in newest.values()]
