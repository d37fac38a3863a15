"""Reading one entry: the hidden states of one encoder on one dataset."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CacheError
from .identity import FORMAT, EntrySpec
from .index import Ids, Index
from .quarantine import Quarantined, read_quarantine
from .zarr_format import Row, map_shard

_TRIES = 5  # a writer would have to publish this often between our two reads


class Entry:
    """The features of one encoder on one dataset, as they were when the entry was opened.

    Open one with :meth:`FeatureCache.open`. An entry may be pickled, sent to other processes and
    used after a fork; it holds no locks and keeps no file open but memory maps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record, self._index = _read(path)
        self._shards: dict[str, np.ndarray[Any, Any]] = {}

    def __reduce__(self) -> tuple[type["Entry"], tuple[Path]]:
        return Entry, (self.path,)

    @cached_property
    def spec(self) -> EntrySpec:
        """The identity of the entry and the form of its arrays."""
        return spec_of(self._record)

    @property
    def ids(self) -> Ids:
        """The ids of all utterances in the entry, sorted."""
        return self._index.ids

    @property
    def n_layers(self) -> int:
        """How many layers are stored; position 0 is the first of ``spec.layers``."""
        return len(self.spec.layers)

    @property
    def dim(self) -> int:
        """Width of the hidden states."""
        return self.spec.dim

    @property
    def provenance(self) -> Mapping[str, Any]:
        """All that is needed to make the entry again; nothing in it changes the numbers."""
        provenance: Mapping[str, Any] = self._record["provenance"]
        return provenance

    @property
    def manifest(self) -> str:
        """The digest of the dataset's manifest at the time of the last extraction."""
        return str(self._record["manifest"])

    @property
    def published(self) -> str:
        """When the entry was last brought up to date (ISO 8601, UTC)."""
        return str(self._record["published"])

    @cached_property
    def quarantine(self) -> dict[str, Quarantined]:
        """The utterances that could not be extracted, by id, each with its reason."""
        return read_quarantine(self.path)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, id: object) -> bool:
        return id in self._index.ids

    def __getitem__(self, id: str) -> np.ndarray[Any, Any]:
        """Return the hidden states of one utterance, (layers, frames, dim), as a read-only view.

        Raises:
            CacheError: the entry does not hold the utterance, or its shard is damaged.
        """
        row = self._row(id)
        shard = self._shard(row.shard)
        if row.offset + row.length > shard.shape[1]:
            raise CacheError(f"shard {row.shard} of {self.path} is damaged: '{id}' lies beyond it")
        return shard[:, row.offset : row.offset + row.length]

    def read(
        self, ids: Iterable[str], layers: Sequence[int] | None = None
    ) -> list[np.ndarray[Any, Any]]:
        """Return the hidden states of several utterances, each (len(layers), frames, dim).

        ``layers`` are positions among the stored layers, negative ones from the end; layers not
        asked for are never read from the disk. Without ``layers`` the arrays are views, with
        ``layers`` they are copies.
        """
        if layers is None:
            return [self[id] for id in ids]
        wanted = list(layers)
        return [self[id][wanted] for id in ids]

    def length(self, id: str) -> int:
        """Return how many frames an utterance has."""
        return self._row(id).length

    def content_hash(self, id: str) -> str:
        """Return the hash of the content from which the utterance was extracted."""
        return self._row(id).content_hash

    def _row(self, id: str) -> Row:
        try:
            return self._index[id]
        except KeyError:
            raise CacheError(f"{self.path.name} does not hold the utterance '{id}'") from None

    def _shard(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self._shards:
            shard = map_shard(self.path / "shards" / name)
            form = (shard.shape[0], shard.shape[2], shard.dtype)
            if form != (self.n_layers, self.dim, np.dtype(self.spec.dtype)):
                raise CacheError(f"shard {name} of {self.path} is not one of this entry's")
            self._shards[name] = shard
        return self._shards[name]


def spec_of(record: Mapping[str, Any]) -> EntrySpec:
    """Read the spec from the content of an ``entry.json``."""
    return EntrySpec(
        dataset=record["dataset"],
        modality=record["modality"],
        encoder=record["encoder"],
        identity=record["identity"],
        layers=tuple(record["layers"]),
        dim=record["dim"],
        dtype=record["dtype"],
    )


def read_record(path: Path) -> dict[str, Any]:
    """Read and check an ``entry.json``."""
    file = path / "entry.json"
    try:
        record: dict[str, Any] = json.loads(file.read_bytes())
        if record["format"] != FORMAT:
            raise CacheError(
                f"{file} has format {record['format']}, and this mser reads format {FORMAT}: "
                "install the version of mser that wrote it"
            )
        key = spec_of(record).key
        for name in ("index", "manifest", "published", "provenance"):
            record[name]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{file} is damaged: {error!r}") from error
    if not path.name.endswith(key):
        raise CacheError(
            f"{path} was filled by another encoder or other settings than its name says "
            f"(its entry.json has the key {key}): move it away, and extract again"
        )
    return record


def _read(path: Path) -> tuple[dict[str, Any], Index]:
    for _ in range(_TRIES):
        try:
            record = read_record(path)
            return record, Index.read(path, record["index"])
        except FileNotFoundError as error:
            missing = error
    raise CacheError(f"{path} is not complete: {missing.filename} is missing; extract again")
