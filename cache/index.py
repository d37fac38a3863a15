"""The index of an entry: the position of each utterance, sorted by id, as one Parquet file.

The file is named by the hash of its content, and ``entry.json`` names the file. The two therefore
always agree, also for a reader that opens the entry while a writer replaces them.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import CacheError, DamagedError
from .identity import KEY_LENGTH
from .lookup import PLAIN, Lookup, write_lookup
from .shard import SCHEMA, checked_rows
from .storage.folder import Folder

FILE = re.compile(rf"index-[0-9a-f]{{{KEY_LENGTH}}}\.parquet")
LOOKUP_FROM = 100_000
"""Utterances of an index from which on it has a lookup file; others are read whole."""
_NONE = np.array([], np.int64)


@dataclass(frozen=True)
class IndexRow:
    """Position of one utterance: ``length`` frames from ``offset`` on in the array of ``shard``."""

    id: str
    shard: str
    offset: int
    length: int
    content_hash: str
    checksum: str
    written: str


class Ids(Sequence[str]):
    """The ids of an entry, sorted and unique."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        value = self._column[position]
        ids: str | list[str] = value.to_pylist() if isinstance(position, slice) else value.as_py()
        return ids

    def __iter__(self) -> Iterator[str]:
        yield from self._column.to_pylist()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.find(id) is not None

    def find(self, id: str) -> int | None:
        """Return the position of ``id``, or ``None``."""
        position = bisect_left(self, id)
        return position if position < len(self) and self[position] == id else None


class LookupIds(Ids):
    """The ids of a large entry, read from its lookup file when they are asked for."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def __len__(self) -> int:
        return len(self._lookup)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self._lookup.id(number) for number in range(*position.indices(len(self)))]
        return self._lookup.id(range(len(self))[position])

    def __iter__(self) -> Iterator[str]:
        return self._lookup.ids()

    def find(self, id: str) -> int | None:
        """Return the position of ``id``, or ``None``."""
        return self._lookup.find(id)


class Index:
    """The rows by id. ``table`` is the table of all rows; their ids are sorted and unique."""

    def __init__(self, table: Any) -> None:
        self.table = table.combine_chunks()

    @cached_property
    def ids(self) -> Ids:
        """The ids, sorted."""
        return Ids(_one_array(self.table.column("id")))

    @classmethod
    def of(cls, tables: Sequence[Any]) -> "Index":
        """Return the index of tables of rows; of several rows with one id, the newest counts."""
        rows = pa.concat_tables([SCHEMA.empty_table(), *tables]).unify_dictionaries()
        keys = rows.select(["id"])
        for name in ("written", "shard"):  # by shard too, so that all writers get the same index
            keys = keys.append_column(name, rows[name].cast(pa.string()))
        order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
        ids = keys["id"].take(order).combine_chunks()
        if not len(ids):
            return cls(rows)
        last = np.append(pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False), True)
        newest = rows.take(order.filter(pa.array(last)))
        for position, name in enumerate(SCHEMA.names):
            if pa.types.is_dictionary(SCHEMA.field(name).type):  # in one order, for equal bytes
                encoded = newest[name].cast(pa.string()).combine_chunks().dictionary_encode()
                newest = newest.set_column(position, name, encoded)
        return cls(newest)

    @classmethod
    def read(cls, folder: Folder, name: str, utterances: int = 0) -> "Index":
        """Read the index file ``name``; of a large one, only the directory of its rows.

        On an object store, it is large if ``utterances`` are many: to look for a directory in vain
        takes a request.

        Raises:
            DamagedError: the content does not have the hash in its name, or is not an index.
            FileNotFoundError: there is no such file.
        """
        if not FILE.fullmatch(name):
            raise DamagedError(
                f"{folder}/entry.json is damaged: '{name}' is not a name of an index"
            )
        if folder.path is not None or utterances >= LOOKUP_FROM:
            with suppress(FileNotFoundError):
                folder.size(name)
                return LookupIndex(folder, name, Lookup(folder, name))
        return cls(_read_table(folder, name, SCHEMA.names))

    def write(self, folder: Folder) -> str:
        """Write the index into ``folder`` and return the name of the file."""
        sink = pa.BufferOutputStream()
        columns: Any = ["shard", "written"]  # the stubs know only bool
        pq.write_table(self.table, sink, compression="zstd", use_dictionary=columns)
        content = sink.getvalue().to_pybytes()
        name = _name(content)
        folder.write(name, content)  # also over an existing file, which may be damaged
        self.write_lookup(folder, name)
        return name

    def write_lookup(self, folder: Folder, name: str) -> None:
        """Write the lookup file of a large index file, if it has none or a damaged one."""
        if len(self) < LOOKUP_FROM:
            return
        with suppress(CacheError, FileNotFoundError):
            Lookup(folder, name).check()
            return
        write_lookup(folder, name, self.table)

    def has_rows_of(self, other: "Index") -> bool:
        """Return whether two indexes are equal; another version of Arrow writes other bytes."""
        return bool(self.table.cast(PLAIN).equals(other.table.cast(PLAIN)))

    def rows_in(self, shards: Collection[str]) -> Any:
        """Return the table of the rows of these shards, by id."""
        codes, order, starts = self._by_shard
        found = [codes[name] for name in set(shards) if name in codes]
        parts = [order[starts[code] : starts[code + 1]] for code in found]
        return self.table.take(pa.array(np.sort(np.concatenate([_NONE, *parts]))))

    @cached_property
    def _by_shard(self) -> tuple[dict[str, int], Any, Any]:
        """Return the number of each shard, the rows by shard, and where each shard's rows begin."""
        encoded = _one_array(self.table["shard"].cast(pa.string()).dictionary_encode())
        names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        return {name: code for code, name in enumerate(names)}, order, starts

    def shards(self) -> list[str]:
        """Return the names of all shards that hold a current utterance, sorted."""
        return sorted(self.columns("shard")["shard"].unique().to_pylist())

    def check(self) -> None:
        """Do nothing: the whole index was compared with its hash when it was read."""

    def latest(self) -> str:
        """Return the latest time of writing, or an empty text if there are no rows."""
        return max(self.columns("written")["written"].unique().to_pylist(), default="")

    def content_hashes(self) -> dict[str, str]:
        """Return the content hash of each utterance, by id."""
        ids, hashes = self.columns("id", "content_hash").columns
        return dict(zip(ids.to_pylist(), hashes.to_pylist(), strict=True))

    def columns(self, *names: str) -> Any:
        """Return a table of some columns."""
        return self.table.select(names)

    def frames(self) -> int:
        """Return the number of frames of all utterances."""
        return pc.sum(self.columns("length")["length"]).as_py() or 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, id: str) -> IndexRow:
        (row,) = self.rows([id])
        return row

    def rows(self, ids: Sequence[str]) -> list[IndexRow]:
        """Return the rows of some ids.

        Raises:
            KeyError: an id is not in the index.
        """
        return [self._row(id) for id in ids]

    def _row(self, id: str) -> IndexRow:
        position = self.ids.find(id)
        if position is None:
            raise KeyError(id)
        values = {name: column[position].as_py() for name, column in self._arrays.items()}
        return IndexRow(**values)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return {name: _one_array(self.table.column(name)) for name in SCHEMA.names}


class LookupIndex(Index):
    """A large published index: rows come from its lookup file, whole columns from the Parquet file.

    It takes little memory as long as nobody asks for ``table``.
    """

    def __init__(self, folder: Folder, name: str, lookup: Lookup) -> None:
        self._folder, self._name, self._lookup = folder, name, lookup

    @cached_property
    def table(self) -> Any:
        """The table of all rows."""
        return self.columns(*SCHEMA.names)

    @cached_property
    def ids(self) -> Ids:
        """The ids, sorted."""
        return LookupIds(self._lookup)

    def check(self) -> None:
        """Compare the whole lookup file with its hashes; raises ``DamagedError``."""
        self._lookup.check()

    def columns(self, *names: str) -> Any:
        """Return a table of some columns; they are read each time, and not kept."""
        if "table" in self.__dict__:
            return self.table.select(names)
        return _read_table(self._folder, self._name, names).combine_chunks()

    def __len__(self) -> int:
        return len(self._lookup)

    def rows(self, ids: Sequence[str]) -> list[IndexRow]:
        """Return the rows of some ids, whose blocks are read together; see :meth:`Index.rows`."""
        return [IndexRow(**row) for row in self._lookup.rows(ids)]


def _one_array(column: Any) -> Any:
    """Return a column as one array; ``combine_chunks`` would copy a single chunk too."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _read_table(folder: Folder, name: str, columns: Sequence[str]) -> Any:
    """Read columns of an index file, whose whole content is compared with the hash in its name."""
    content = folder.read(name)
    if name != _name(content):
        raise DamagedError(
            f"{folder}/{name} is damaged: its content does not have the hash in its name; "
            "'mser cache verify --repair' rebuilds it from the shards"
        )
    # Only on this thread: Arrow's own threads may still hold ``content`` when Python ends, and then
    # abort it.
    dictionaries = ["shard", "written"]
    try:
        file = pq.ParquetFile(
            pa.BufferReader(content), read_dictionary=dictionaries, pre_buffer=False
        )
        schema = pa.schema([SCHEMA.field(column) for column in columns])
        table = file.read(list(columns), use_threads=False).select(columns).cast(schema)
        table.validate(full=True)
        return checked_rows(table) if len(columns) == len(SCHEMA) else table
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(
            f"{folder}/{name} is damaged: it is not an index ({reason}); "
            "'mser cache verify --repair' rebuilds it from the shards"
        ) from error


def _name(content: bytes) -> str:
    return f"index-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.parquet"
