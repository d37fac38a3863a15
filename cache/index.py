"""The index of an entry: the position of each utterance, sorted by id, as one Parquet file.

The file is named by the hash of its content, and ``entry.json`` names the file. The two therefore
always agree, also for a reader that opens the entry while a writer replaces them.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import DamagedError
from .identity import KEY_LENGTH
from .shard import SCHEMA, checked_rows
from .storage.folder import Folder

FILE = re.compile(rf"index-[0-9a-f]{{{KEY_LENGTH}}}\.parquet")


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
    """The ids of an entry, sorted; looked up by bisection, so a million of them open at once."""

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


class Index:
    """The rows by id. ``table`` is the table of all rows; ``ids`` are sorted and unique."""

    def __init__(self, table: Any) -> None:
        self.table = table.combine_chunks()
        columns = {name: _one_array(self.table.column(name)) for name in SCHEMA.names}
        self.ids = Ids(columns.pop("id"))
        self._columns = columns

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
    def read(cls, folder: Folder, name: str) -> "Index":
        """Read the index file ``name`` and compare its content with the hash in its name.

        Raises:
            DamagedError: they differ, or the file is not an index.
            FileNotFoundError: there is no such file.
        """
        if not FILE.fullmatch(name):
            raise DamagedError(
                f"{folder}/entry.json is damaged: '{name}' is not a name of an index"
            )
        content = folder.read(name)
        if name != _name(content):
            raise DamagedError(
                f"{folder}/{name} is damaged: its content does not have the hash in its name; "
                "'mser cache verify --repair' rebuilds it from the shards"
            )
        # Only on this thread: Arrow's own threads may still hold ``content`` when Python ends, and
        # then abort it.
        dictionaries = ["shard", "written"]
        try:
            file = pq.ParquetFile(
                pa.BufferReader(content), read_dictionary=dictionaries, pre_buffer=False
            )
            table = file.read(use_threads=False).select(SCHEMA.names).cast(SCHEMA)
            table.validate(full=True)
            checked_rows(table)
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise DamagedError(
                f"{folder}/{name} is damaged: it is not an index ({reason}); "
                "'mser cache verify --repair' rebuilds it from the shards"
            ) from error
        return cls(table)

    @cached_property
    def content(self) -> bytes:
        """The content of the index file."""
        sink = pa.BufferOutputStream()
        columns: Any = ["shard", "written"]  # the stubs know only bool
        pq.write_table(self.table, sink, compression="zstd", use_dictionary=columns)
        return bytes(sink.getvalue().to_pybytes())

    @property
    def name(self) -> str:
        """The name of the index file."""
        return _name(self.content)

    def write(self, folder: Folder) -> str:
        """Write the index into ``folder`` and return the name of the file."""
        folder.write(self.name, self.content)  # also over an existing file, which may be damaged
        return self.name

    def rows_in(self, shards: Collection[str]) -> Any:
        """Return the table of the rows of these shards."""
        return self.table.filter(pc.is_in(self.table["shard"].cast(pa.string()), _strings(shards)))

    def shards(self) -> list[str]:
        """Return the names of all shards that hold a current utterance, sorted."""
        return sorted(self.table["shard"].unique().to_pylist())

    def latest(self) -> str:
        """Return the latest time of writing, or an empty text if there are no rows."""
        return max(self.table["written"].unique().to_pylist(), default="")

    def content_hashes(self) -> dict[str, str]:
        """Return the content hash of each utterance, by id."""
        ids, hashes = self.table["id"].to_pylist(), self.table["content_hash"].to_pylist()
        return dict(zip(ids, hashes, strict=True))

    def frames(self) -> int:
        """Return the number of frames of all utterances."""
        return pc.sum(self.table["length"]).as_py() or 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, id: str) -> IndexRow:
        position = self.ids.find(id)
        if position is None:
            raise KeyError(id)
        values = {name: column[position].as_py() for name, column in self._columns.items()}
        return IndexRow(id, **values)


def _one_array(column: Any) -> Any:
    """Return a column as one array; ``combine_chunks`` would copy a single chunk too."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _strings(values: Collection[str]) -> Any:
    return pa.array(sorted(values), pa.string())


def _name(content: bytes) -> str:
    return f"index-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.parquet"
