"""The index of an entry: where each utterance lies, sorted by id, as one Parquet file.

The file is named by its content, and ``entry.json`` names the file, so that the two always agree
even for a reader that comes while a writer replaces them.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import CacheError
from .identity import KEY_LENGTH
from .shard import SCHEMA, checked_rows
from .storage.folder import Folder

FILE = re.compile(rf"index-[0-9a-f]{{{KEY_LENGTH}}}\.parquet")


@dataclass(frozen=True)
class IndexRow:
    """Where one utterance lies: ``length`` frames from ``offset`` on in the array of ``shard``."""

    id: str
    shard: str
    offset: int
    length: int
    content_hash: str
    checksum: str
    written: str


class Ids(Sequence[str]):
    """The ids of an entry, sorted; found by bisection, so that a million cost nothing to open."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        found: str | list[str] = (
            self._column[at].to_pylist() if isinstance(at, slice) else self._column[at].as_py()
        )
        return found

    def __iter__(self) -> Iterator[str]:
        yield from self._column.to_pylist()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.find(id) is not None

    def find(self, id: str) -> int | None:
        """Return the position of ``id``, or ``None``."""
        at = bisect_left(self, id)
        return at if at < len(self) and self[at] == id else None


class Index:
    """Rows by id. ``table`` holds them as columns, ``ids`` are sorted and unique."""

    def __init__(self, table: Any) -> None:
        self.table = table.combine_chunks()
        columns = {name: _whole(self.table.column(name)) for name in SCHEMA.names}
        self.ids = Ids(columns.pop("id"))
        self._columns = columns

    @classmethod
    def of(cls, tables: Sequence[Any]) -> "Index":
        """Make an index of tables of rows; of several rows of one id, the newest counts."""
        rows = pa.concat_tables([SCHEMA.empty_table(), *tables]).unify_dictionaries()
        keys = rows.select(["id"])
        for name in ("written", "shard"):  # the shard, so that two writers come to the same index
            keys = keys.append_column(name, rows[name].cast(pa.string()))
        order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
        ids = keys["id"].take(order).combine_chunks()
        if not len(ids):
            return cls(rows)
        last = np.append(pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False), True)
        newest = rows.take(order.filter(pa.array(last)))
        for at, name in enumerate(SCHEMA.names):
            if pa.types.is_dictionary(SCHEMA.field(name).type):  # in one order, for equal bytes
                again = newest[name].cast(pa.string()).combine_chunks().dictionary_encode()
                newest = newest.set_column(at, name, again)
        return cls(newest)

    @classmethod
    def read(cls, folder: Folder, name: str) -> "Index":
        """Read the index file ``name`` and check that its content is what its name says.

        Raises:
            CacheError: it is not, or is no index.
            FileNotFoundError: there is no such file.
        """
        if not FILE.fullmatch(name):
            raise CacheError(f"{folder}/entry.json is refused: '{name}' cannot name an index")
        content = folder.read(name)
        if name != _name(content):
            raise CacheError(
                f"{folder}/{name} is damaged: its content is not what its name says; "
                "'mser cache verify --repair' makes it again from the shards"
            )
        # On this thread alone: Arrow's own threads may still hold ``content`` when Python ends, and
        # then end it with an abort.
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
            raise CacheError(f"{folder}/{name} is refused: it is no index ({reason})") from error
        return cls(table)

    def write(self, folder: Folder) -> str:
        """Write the index into ``folder`` and return the file's name."""
        sink = pa.BufferOutputStream()
        columns: Any = ["shard", "written"]  # the stubs know only bool
        pq.write_table(self.table, sink, compression="zstd", use_dictionary=columns)
        content = sink.getvalue().to_pybytes()
        folder.write(_name(content), content)  # what has the name already may be damaged
        return _name(content)

    def within(self, shards: Collection[str]) -> Any:
        """Return the table of the rows that lie in one of ``shards``."""
        return self.table.filter(pc.is_in(self.table["shard"].cast(pa.string()), _strings(shards)))

    def shards(self) -> list[str]:
        """Return the names of all shards in which an utterance lies, sorted."""
        return sorted(self.table["shard"].unique().to_pylist())

    def frames(self) -> int:
        """Return how many frames all utterances have."""
        return pc.sum(self.table["length"]).as_py() or 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, id: str) -> IndexRow:
        at = self.ids.find(id)
        if at is None:
            raise KeyError(id)
        return IndexRow(id, **{name: column[at].as_py() for name, column in self._columns.items()})


def _whole(column: Any) -> Any:
    """Return a column as one array; ``combine_chunks`` would copy one that is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _strings(values: Collection[str]) -> Any:
    return pa.array(sorted(values), pa.string())


def _name(content: bytes) -> str:
    return f"index-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.parquet"
