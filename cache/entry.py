"""Reading one entry: the hidden states of one encoder on one dataset."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from .dtypes import decoded
from .errors import (
    CacheError,
    DamagedError,
    MissingShardError,
    NotFoundError,
    UnknownUtteranceError,
    damaged_shard,
)
from .formats.arrays import Array, LayerIndex, StoredArray, most_maps
from .identity import ENTRY_FORMAT, EntrySpec
from .index import FILE as INDEX
from .index import Ids, Index, IndexRow
from .provenance import read_runs
from .quarantine import Quarantined, read_quarantine
from .scale import Scale
from .scale_file import scale_for_reading
from .shard import DAMAGE, open_shard
from .storage.folder import Folder

_TRIES = 5  # fails only if a writer publishes this often between two of our reads
_ROWS = 65_536  # rows of the index kept as Python objects; others are looked up again
_REQUESTS = 16  # at once, to an object store or a disk


class Entry:
    """The features of one encoder on one dataset, as they were when the entry was opened.

    Open one with :meth:`FeatureCache.open`. An entry may be pickled, sent to other processes, used
    after a fork and by several threads. It holds no locks and keeps no files open except memory
    maps.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._record = read_record(folder)
        self._row = lru_cache(_ROWS)(self._uncached_row)
        self._shard = lru_cache(most_maps() // 2)(self._uncached_shard)
        self._opened: set[str] = set()  # shards that were opened in advance

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
    def layers(self) -> tuple[int, ...]:
        """The encoder's numbers of the stored layers, in the order of the arrays' first axis.

        0 is the input of the first transformer layer, n the output of the last.
        """
        return self.spec.layers

    @property
    def n_layers(self) -> int:
        """The number of stored layers."""
        return len(self.spec.layers)

    @property
    def dim(self) -> int:
        """Width of the hidden states."""
        return self.spec.dim

    @cached_property
    def scale(self) -> Scale | None:
        """What the codes of an ``int8`` entry mean; ``None`` for other dtypes.

        Raises:
            DamagedError: it is damaged or missing.
        """
        return scale_for_reading(self.folder, self.spec)

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """The runs that filled the entry, oldest first; each lists what is needed to repeat it.

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
        """The time of the last update of the entry (ISO 8601, UTC)."""
        return str(self._record["published"])

    @cached_property
    def quarantine(self) -> dict[str, Quarantined]:
        """The utterances that could not be extracted, by id, each with its reason."""
        return read_quarantine(self.folder)

    @cached_property
    def index(self) -> Index:
        """The positions of all utterances; read on first use."""
        for _ in range(_TRIES):
            try:
                return Index.read(self.folder, self.index_name, self._utterances)
            except FileNotFoundError:
                self._record = read_record(self.folder)  # a writer has replaced the index
        raise DamagedError(
            f"{self.folder} is incomplete: {self.index_name} is missing; "
            "'mser cache verify --repair' rebuilds it from the shards"
        )

    @property
    def _shards(self) -> Folder:
        return self.folder / "shards"

    @property
    def _utterances(self) -> int:
        number = self._record.get("utterances")
        return number if isinstance(number, int) else 0

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return id in self.ids

    def __getitem__(self, id: str) -> Array:
        """Return the hidden states of one utterance, (layers, frames, dim), read-only.

        They are float16 if the entry is, and otherwise float32. On a local file system this is a
        view of a memory map, unless the entry is compressed, ``bfloat16`` or ``int8``.

        Raises:
            UnknownUtteranceError: the entry does not hold the utterance.
            DamagedError: its shard is damaged.
        """
        return self._read(self._row(id), slice(None))

    def read(self, ids: Iterable[str], layers: Iterable[int] | None = None) -> list[Array]:
        """Return the hidden states of several utterances, each (len(layers), frames, dim).

        ``layers`` are the encoder's own layer numbers, out of :attr:`layers`, in any order; other
        layers are never read. By default all stored layers are returned. The arrays are read-only,
        float16 if the entry is, and otherwise float32: views of memory maps where the entry is
        local, uncompressed, and float16 or float32, and the layers are stored next to each other,
        otherwise copies. From an object store, the utterances are fetched in parallel.

        Raises:
            NotFoundError: a layer is not stored.
            UnknownUtteranceError: the entry does not hold an utterance.
            DamagedError: a shard is damaged.
        """
        positions = self._positions(layers)
        local = self.folder.path is not None
        rows = [self._row(id) for id in ids] if local else self._rows(list(ids))
        new = {row.shard for row in rows} - self._opened
        if len(new) > 1 or (new and not local):
            # One thread opens each shard before all of them read from it. What fails is raised, or
            # solved, by the read below.
            with ThreadPoolExecutor(_REQUESTS) as pool, suppress(CacheError):
                list(pool.map(self._shard, new))
            self._opened |= new
        if local:
            return [self._read(row, positions) for row in rows]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(lambda row: self._read(row, positions), rows))

    def length(self, id: str) -> int:
        """Return how many frames an utterance has."""
        return self._row(id).length

    def content_hash(self, id: str) -> str:
        """Return the hash of the content from which the utterance was extracted."""
        return self._row(id).content_hash

    def checksum(self, id: str) -> str:
        """Return the hash of the utterance's features, the same in any format and place."""
        return self._row(id).checksum

    def _positions(self, layers: Iterable[int] | None) -> LayerIndex:
        """Return where layers are in the arrays, as a slice if they are next to each other."""
        if layers is None:
            return slice(None)
        positions = []
        for layer in layers:
            if layer not in self.layers:
                stored = ",".join(map(str, self.layers))
                raise NotFoundError(
                    f"layer {layer} is not in {self.folder}: it holds layers {stored}"
                )
            positions.append(self.layers.index(layer))
        if positions and positions == [*range(positions[0], positions[0] + len(positions))]:
            return slice(positions[0], positions[0] + len(positions))
        return positions

    def _read(self, row: IndexRow, positions: LayerIndex) -> Array:
        try:
            return self._frames(row, positions)
        except MissingShardError:
            return self._frames(self._moved_row(row), positions)

    def _frames(self, row: IndexRow, positions: LayerIndex) -> Array:
        array = self._shard(row.shard)
        stop = row.offset + row.length
        if stop > array.shape[1]:
            raise damaged_shard(self._shards, row.shard, f"'{row.id}' is beyond its end")
        scale = self.scale
        try:
            stored = array.read(positions, row.offset, stop)
            return decoded(stored, self.spec.dtype, scale, positions)
        except CacheError:  # some of them are also an OSError
            raise
        except FileNotFoundError as error:
            raise MissingShardError(
                f"shard {row.shard} of {self._shards} is missing, or a part of it is: "
                "'mser cache verify' lists what is lost"
            ) from error
        except DAMAGE as error:
            reason = f"'{row.id}' cannot be decoded ({' '.join(str(error).split())})"
            raise damaged_shard(
                self._shards, row.shard, f"{reason}; 'mser cache verify' lists what else is damaged"
            ) from error

    def _uncached_row(self, id: str) -> IndexRow:
        (row,) = self._rows([id])
        return row

    def _rows(self, ids: list[str]) -> list[IndexRow]:
        try:
            return self.index.rows(ids)
        except FileNotFoundError:  # a writer has replaced the index, and gc has deleted the old one
            self._record = read_record(self.folder)
            del self.index
            return self._rows(ids)
        except KeyError as error:
            raise UnknownUtteranceError(
                f"{self.folder} does not hold the utterance '{error.args[0]}'"
            ) from None

    def _uncached_shard(self, name: str) -> StoredArray:
        return open_shard(self._shards, name, self.spec)

    def _moved_row(self, row: IndexRow) -> IndexRow:
        """Return the new row of an utterance whose shard was replaced after the entry was opened.

        Raises:
            MissingShardError: the utterance was changed or removed, or its shard is lost.
        """
        with suppress(FileNotFoundError):
            latest = Entry(self.folder)
            if row.id in latest and latest.checksum(row.id) == row.checksum:
                self._record, self.index = latest._record, latest.index
                self._row.cache_clear()
                return self._row(row.id)
        raise MissingShardError(
            f"shard {row.shard} of {self._shards} is missing, or a part of it is: "
            "'mser cache verify' lists what is lost; after 'mser cache verify --repair', the next "
            "'mser extract' extracts it again"
        )


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
        DamagedError: it is damaged.
        CacheError: it has another format version, or belongs to another entry.
        FileNotFoundError: there is no ``entry.json``.
    """
    file = f"{folder}/entry.json"
    try:
        record: dict[str, Any] = json.loads(folder.read("entry.json"))
        if record["format"] != ENTRY_FORMAT:
            raise CacheError(
                f"{file} has format {record['format']}, and this mser reads format {ENTRY_FORMAT}: "
                "install the version of mser that wrote it"
            )
        key = spec_of(record).checked().key
        for name in ("index", "manifest", "published"):
            if not isinstance(record[name], str):
                raise TypeError(f"{name} is not a text")
        if not INDEX.fullmatch(record["index"]):
            raise ValueError(f"'{record['index']}' is not a name of an index")
        if datetime.fromisoformat(record["published"]).tzinfo is None:
            raise ValueError(f"published {record['published']}")
        record["manifest"].encode()  # raises if it cannot be written to a file
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{file} is damaged ({error!r}): delete it and extract again; features that are "
            "undamaged are not computed again"
        ) from error
    if not folder.name.endswith(key):
        raise CacheError(
            f"{folder} was filled by another encoder or with other settings than its name gives "
            f"(its entry.json has the key {key}): move it away and extract again"
        )
    return record
