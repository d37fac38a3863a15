"""The index of an entry: where each utterance lies, sorted by id, as one Parquet file.

The file is named by its content, and ``entry.json`` names the file, so that the two always agree
even for a reader that comes while a writer replaces them.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import write_file
from .errors import CacheError
from .identity import KEY_LENGTH
from .zarr_format import Row

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "shard": pa.dictionary(pa.int32(), pa.string()),
        "offset": pa.int64(),
        "length": pa.int64(),
        "content_hash": pa.string(),
    }
)


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
    """Rows by id."""

    def __init__(self, table: Any) -> None:
        self._table = table.combine_chunks()
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        self.ids = Ids(columns.pop("id"))
        self._columns = columns

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Index":
        """Make an index of ``rows``, at most one of which may have a given id."""
        ordered = sorted(rows, key=lambda row: row.id)
        columns = {
            name: [getattr(row, name) for row in ordered]
            for name in _SCHEMA.names
            if name != "shard"
        }
        shards = pa.array([row.shard for row in ordered], pa.string()).dictionary_encode()
        return cls(pa.table({**columns, "shard": shards}).select(_SCHEMA.names).cast(_SCHEMA))

    @classmethod
    def read(cls, folder: Path, name: str) -> "Index":
        """Read the index file ``name`` and check that its content is what its name says."""
        path = folder / name
        content = path.read_bytes()
        if name != _name(content):
            raise CacheError(f"{path} is damaged: its content is not what its name says")
        # On this thread alone: Arrow's own threads may still hold ``content`` when Python ends, and
        # then end it with an abort.
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=["shard"], pre_buffer=False)
        return cls(file.read(use_threads=False))

    def write(self, folder: Path) -> str:
        """Write the index below ``folder`` and return the file's name."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table, sink)
        content = sink.getvalue().to_pybytes()
        write_file(folder / _name(content), content)
        return _name(content)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Row]:
        for values in self._table.to_pylist():
            yield Row(**values)

    def __getitem__(self, id: str) -> Row:
        at = self.ids.find(id)
        if at is None:
            raise KeyError(id)
        return Row(id, **{name: column[at].as_py() for name, column in self._columns.items()})


def _name(content: bytes) -> str:
    return f"index-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.parquet"
