"""Reading one entry: the hidden states of one encoder on one dataset."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from .errors import CacheError, MissingShardError
from .formats.arrays import Array, LayerIndex, StoredArray, most_maps
from .identity import FORMAT, EntrySpec
from .index import FILE as INDEX
from .index import Ids, Index, IndexRow
from .provenance import read_runs
from .quarantine import Quarantined, read_quarantine
from .shard import DAMAGE, open_shard
from .storage.folder import Folder

_TRIES = 5  # a writer would have to publish this often between our two reads
_ROWS = 65_536  # found once, kept; the rest is found again by bisection
_REQUESTS = 16  # at once, to an object store


class Entry:
    """The features of one encoder on one dataset, as they were when the entry was opened.

    Open one with :meth:`FeatureCache.open`. An entry may be pickled, sent to other processes, used
    after a fork and by several threads; it holds no locks and keeps nothing open but memory maps.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._record = read_record(folder)
        self._row = lru_cache(_ROWS)(self._find)
        self._shard = lru_cache(most_maps() // 2)(self._open)

    def __reduce__(self) -> tuple[type["Entry"], tuple[Folder]]:
        return Entry, (self.folder,)

    @cached_property
    def spec(self) -> EntrySpec:
        """The identity of the entry and the form of its arrays."""
        return spec_of(self._record)

    @property
    def ids(self) -> Ids:
        """The ids of all utterances in the entry, sorted."""
        return self.index.ids

    @property
    def n_layers(self) -> int:
        """How many layers are stored; position 0 is the first of ``spec.layers``."""
        return len(self.spec.layers)

    @property
    def dim(self) -> int:
        """Width of the hidden states."""
        return self.spec.dim

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """The runs that filled the entry, oldest first, each with all that is needed to repeat it.

        Nothing in them changes the numbers.
        """
        return read_runs(self.folder)

    @property
    def manifest(self) -> str:
        """The digest of the dataset's manifest at the time of the last extraction."""
        return str(self._record["manifest"])

    @property
    def index_name(self) -> str:
        """The name of the index file."""
        return str(self._record["index"])

    @property
    def published(self) -> str:
        """When the entry was last brought up to date (ISO 8601, UTC)."""
        return str(self._record["published"])

    @cached_property
    def quarantine(self) -> dict[str, Quarantined]:
        """The utterances that could not be extracted, by id, each with its reason."""
        return read_quarantine(self.folder)

    @cached_property
    def index(self) -> Index:
        """Where each utterance lies; read when it is first asked for."""
        for _ in range(_TRIES):
            try:
                return Index.read(self.folder, self.index_name)
            except FileNotFoundError:
                self._record = read_record(self.folder)  # a writer has replaced it meanwhile
        raise CacheError(
            f"{self.folder} is not complete: {self.index_name} is missing; "
            "'mser cache verify --repair' makes it again from the shards"
        )

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return id in self.ids

    def __getitem__(self, id: str) -> Array:
        """Return the hidden states of one utterance, (layers, frames, dim), read-only.

        On a local file system this is a view of a memory map, unless the entry is compressed.

        Raises:
            CacheError: the entry does not hold the utterance, or its shard is damaged.
        """
        return self._read(id, slice(None))

    def read(self, ids: Iterable[str], layers: Sequence[int] | None = None) -> list[Array]:
        """Return the hidden states of several utterances, each (len(layers), frames, dim).

        ``layers`` are positions among the stored layers, negative ones from the end; layers not
        asked for are never read. The arrays are read-only: views of memory maps where the entry is
        local and uncompressed and the layers follow one another, copies otherwise. From an object
        store, the utterances are fetched in parallel.

        Raises:
            CacheError: the entry does not hold an utterance, or a shard is damaged.
            IndexError: there is no such layer.
        """
        chosen = _chosen(layers, self.n_layers)
        if self.folder.path is not None:
            return [self._read(id, chosen) for id in ids]
        wanted = list(ids)
        shards = {self._row(id).shard for id in wanted}
        with ThreadPoolExecutor(_REQUESTS) as pool:
            # Each shard is opened once, by one thread, before all of them ask for it.
            with suppress(MissingShardError):  # told, or found elsewhere, when it is read
                list(pool.map(self._shard, shards))
            return list(pool.map(lambda id: self._read(id, chosen), wanted))

    def length(self, id: str) -> int:
        """Return how many frames an utterance has."""
        return self._row(id).length

    def content_hash(self, id: str) -> str:
        """Return the hash of the content from which the utterance was extracted."""
        return self._row(id).content_hash

    def checksum(self, id: str) -> str:
        """Return the hash of the utterance's features, the same in any format and place."""
        return self._row(id).checksum

    def _read(self, id: str, layers: LayerIndex) -> Array:
        row = self._row(id)
        try:
            return self._frames(row, layers)
        except MissingShardError:
            return self._frames(self._moved(row), layers)

    def _frames(self, row: IndexRow, layers: LayerIndex) -> Array:
        shard = self._shard(row.shard)
        stop = row.offset + row.length
        if stop > shard.shape[1]:
            raise CacheError(
                f"shard {row.shard} of {self.folder} is damaged: '{row.id}' lies beyond its end"
            )
        try:
            return shard.read(layers, row.offset, stop)
        except FileNotFoundError as error:
            raise MissingShardError(
                f"shard {row.shard} of {self.folder} is missing, or a part of it is: 'mser cache "
                "verify' says what is lost"
            ) from error
        except DAMAGE as error:
            raise CacheError(
                f"shard {row.shard} of {self.folder} is damaged: '{row.id}' cannot be decoded "
                f"({' '.join(str(error).split())}): 'mser cache verify' says what else is"
            ) from error

    # Called through a cache each: see the constructor.

    def _find(self, id: str) -> IndexRow:
        try:
            return self.index[id]
        except KeyError:
            raise CacheError(f"{self.folder.name} does not hold the utterance '{id}'") from None

    def _open(self, name: str) -> StoredArray:
        return open_shard(self.folder / "shards", name, self.spec)

    def _moved(self, row: IndexRow) -> IndexRow:
        """Find an utterance again whose shard was replaced since the entry was opened."""
        with suppress(FileNotFoundError):
            now = Entry(self.folder)
            if row.id in now and now.checksum(row.id) == row.checksum:
                self._record, self.index = now._record, now.index
                self._row.cache_clear()
                return self._row(row.id)
        raise MissingShardError(
            f"shard {row.shard} of {self.folder} is missing, or a part of it is: 'mser cache "
            "verify' says what is lost, with --repair the next extraction makes it again"
        )


def _chosen(layers: Sequence[int] | None, count: int) -> LayerIndex:
    """Return layers from 0 on, as a slice where they follow one another."""
    if layers is None:
        return slice(None)
    stored = range(count)
    wanted = [stored[layer] for layer in layers]
    if wanted and wanted == [*range(wanted[0], wanted[0] + len(wanted))]:
        return slice(wanted[0], wanted[0] + len(wanted))
    return wanted


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


def read_record(folder: Folder) -> dict[str, Any]:
    """Read and check an ``entry.json``.

    Raises:
        CacheError: it is damaged, or another entry's.
        FileNotFoundError: there is none.
    """
    file = f"{folder}/entry.json"
    try:
        record: dict[str, Any] = json.loads(folder.read("entry.json"))
        if record["format"] != FORMAT:
            raise CacheError(
                f"{file} has format {record['format']}, and this mser reads format {FORMAT}: "
                "install the version of mser that wrote it"
            )
        spec = spec_of(record)
        key = spec.checked().key
        for name in ("index", "manifest", "published"):
            if not isinstance(record[name], str):
                raise TypeError(f"{name} is no text")
        if not INDEX.fullmatch(record["index"]):
            raise ValueError(f"'{record['index']}' cannot name an index")
        if datetime.fromisoformat(record["published"]).tzinfo is None:
            raise ValueError(f"published {record['published']}")
        record["manifest"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(
            f"{file} is damaged ({error!r}): delete it, and extract again; nothing that is whole "
            "is computed twice"
        ) from error
    if not folder.name.endswith(key):
        raise CacheError(
            f"{folder} was filled by another encoder or other settings than its name says "
            f"(its entry.json has the key {key}): move it away, and extract again"
        )
    return record
