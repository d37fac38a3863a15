"""Rows of a large index by id, at the cost of blocks of a file and not of the whole index.

The file ``index-<hash>.lookup`` holds the rows of the Parquet file with that name, sorted by id, in
blocks. Behind the blocks is a directory: the first id, the end and the hash of each block. The last
bytes are the position and the hash of the directory. Blocks and directory are Arrow streams. The
file is derived: where there is none, the Parquet file is read.

A request to an object store takes as long as many blocks. So neighbouring blocks are read by one
request, and of an object store the blocks behind the wanted one too.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from .errors import DamagedError
from .shard import NAME, SCHEMA
from .storage.folder import Folder

SUFFIX = ".lookup"
_ROWS = 256  # in a block
_KEPT = 256  # blocks
_AHEAD = 16  # blocks of an object store that one request reads
_TAIL = 2**18  # bytes at the end that are read at once: often the whole directory
_MARK = b"mser-lookup-1"
_END = struct.Struct(f"<qqq32s{len(_MARK)}s")  # rows, start and stop of the directory, hash, mark
_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("first", pa.string()),
    pa.field("stop", pa.int64()),
    pa.field("hash", pa.binary(16)),
]
_DIRECTORY = pa.schema(_FIELDS)
PLAIN = pa.schema(
    [
        (field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field in SCHEMA
    ]
)
"""The schema of the rows with plain texts."""
_DAMAGE = (pa.ArrowException, ValueError, LookupError, TypeError, OSError, struct.error)


def lookup_of(index: str) -> str:
    """Return the name of the lookup file of an index file."""
    return index.removesuffix(".parquet") + SUFFIX


def write_lookup(folder: Folder, index: str, table: Any) -> None:
    """Write the lookup file of an index file, whose rows are ``table``, sorted by id."""
    firsts: list[str] = []
    stops: list[int] = []
    hashes: list[bytes] = []
    with folder.workspace() as built:
        with built.open("wb") as file:
            for start in range(0, len(table), _ROWS):
                rows = table.slice(start, _ROWS)
                block = _stream(rows.cast(PLAIN))  # else each block has the names of all shards
                file.write(block)
                firsts.append(rows["id"][0].as_py())
                stops.append(file.tell())
                hashes.append(_hash(block)[:16])
            directory = _stream(pa.table([firsts, stops, hashes], schema=_DIRECTORY))
            start = file.tell()
            file.write(directory)
            file.write(_END.pack(len(table), start, file.tell(), _hash(directory), _MARK))
        folder.remove(lookup_of(index))
        folder.commit(built, lookup_of(index))


class Lookup:
    """The rows of one index: by position, by id, or all ids in order."""

    def __init__(self, folder: Folder, index: str) -> None:
        """Read the directory.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedError: the file is damaged.
        """
        self._folder, self.name = folder, lookup_of(index)
        size = folder.size(self.name)
        try:
            tail = self._bytes(max(0, size - _TAIL), size)
            count, start, stop, directory_hash, mark = _END.unpack(tail[-_END.size :])
            before = size - len(tail)
            inside = before <= start <= stop
            content = tail[start - before : stop - before] if inside else self._bytes(start, stop)
            if mark != _MARK or _hash(content) != directory_hash:
                raise ValueError("its directory is not the one that was written")
            directory = _table(content).cast(_DIRECTORY)
            self._count = int(count)
            self._firsts = directory["first"].combine_chunks()
            self._stops = [0, *directory["stop"].to_pylist()]
            self._hashes = directory["hash"].combine_chunks()
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise self._damaged(error) from error
        self._ahead = 1 if folder.path is not None else _AHEAD
        self._kept: dict[int, Any] = {}  # replaced as a whole, since several threads may read

    def __len__(self) -> int:
        return self._count

    def check(self) -> None:
        """Read the whole file; raises ``DamagedError`` if a block is not as it was written."""
        for _ in self._all_blocks():
            pass

    def ids(self) -> Iterator[str]:
        """Yield all ids in order."""
        for block in self._all_blocks():
            yield from block["id"].to_pylist()

    def id(self, position: int) -> str:
        """Return the id at a position, 0 to the number of rows - 1."""
        text: str = self._block(position // _ROWS)["id"][position % _ROWS].as_py()
        return text

    def find(self, id: str) -> int | None:
        """Return the position of ``id``, or ``None``."""
        number = self._block_of(id)
        if number is None:
            return None
        inside = _find(self._block(number), id)
        return None if inside is None else number * _ROWS + inside

    def rows(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of some ids by the names of the columns; their blocks are read together.

        Raises:
            KeyError: an id is not in the index.
        """
        numbers = [self._block_of(id) for id in ids]
        wanted = {number for number in numbers if number is not None}
        # One id is often the first of many that come one after the other.
        blocks = self._blocks(wanted) if len(wanted) > 1 else {n: self._block(n) for n in wanted}
        return [
            self._row(id, None if number is None else blocks[number])
            for id, number in zip(ids, numbers, strict=True)
        ]

    def _row(self, id: str, block: Any) -> dict[str, Any]:
        inside = None if block is None else _find(block, id)
        if inside is None:
            raise KeyError(id)
        (row,) = block.slice(inside, 1).to_pylist()
        if not NAME.fullmatch(row["shard"]) or row["offset"] < 0 or row["length"] < 1:
            raise self._damaged(ValueError(f"'{row['id']}' is outside its shard"))
        return dict(row)

    def _block_of(self, id: str) -> int | None:
        """Return the number of the only block that may hold ``id``."""
        number = bisect_right(_Texts(self._firsts), id) - 1
        return number if number >= 0 else None

    def _block(self, number: int) -> Any:
        if (block := self._kept.get(number)) is not None:
            return block
        return self._blocks(range(number, min(number + self._ahead, len(self._hashes))))[number]

    def _blocks(self, numbers: Collection[int]) -> dict[int, Any]:
        """Return blocks by number; those that are not in memory are read together."""
        kept = self._kept
        blocks = {number: kept[number] for number in numbers if number in kept}
        new = self._read([number for number in numbers if number not in kept])
        self._kept = dict([*kept.items(), *new.items()][-_KEPT:])
        return blocks | new

    def _all_blocks(self) -> Iterator[Any]:
        count = len(self._hashes)
        for first in range(0, count, _AHEAD):
            yield from self._read(range(first, min(first + _AHEAD, count))).values()

    def _read(self, numbers: Collection[int]) -> dict[int, Any]:
        """Read blocks, neighbours by one request, and check them."""
        runs: list[list[int]] = []
        for number in sorted(numbers):
            if runs and number - runs[-1][-1] <= self._ahead:
                runs[-1].append(number)
            else:
                runs.append([number])
        ranges = [(self._stops[run[0]], self._stops[run[-1] + 1]) for run in runs]
        contents = self._folder.read_ranges(self.name, ranges) if ranges else []
        return {
            number: self._checked(
                number, content[self._stops[number] - start : self._stops[number + 1] - start]
            )
            for run, (start, _), content in zip(runs, ranges, contents, strict=True)
            for number in run
        }

    def _checked(self, number: int, content: bytes) -> Any:
        try:
            if _hash(content)[:16] != self._hashes[number].as_py():
                raise ValueError(f"block {number} is not the one that was written")
            (block,) = _table(content).to_batches()
            block.validate(full=True)
            if block.schema != PLAIN or not 0 < len(block) <= _ROWS:
                raise ValueError(f"block {number} does not hold rows of an index")
            return block
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _bytes(self, start: int, stop: int) -> bytes:
        if not 0 <= start <= stop:
            raise ValueError(f"it ends at byte {stop}, before byte {start}")
        (content,) = self._folder.read_ranges(self.name, [(start, stop)])
        return content

    def _damaged(self, error: Exception) -> DamagedError:
        reason = " ".join(str(error).split())
        return DamagedError(
            f"{self._folder}/{self.name} is damaged ({reason}): delete it, and the Parquet file of "
            "that name is read instead"
        )


def _find(block: Any, id: str) -> int | None:
    """Return the position of ``id`` in a block, or ``None``."""
    ids = _Texts(block["id"])
    inside = bisect_right(ids, id) - 1
    return inside if inside >= 0 and ids[inside] == id else None


class _Texts:
    """An Arrow column of texts, for ``bisect``."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, position: int) -> str:
        text: str = self._column[position].as_py()
        return text


def _stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    # Without threads: to wake them takes longer than such small tables.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table(content: bytes) -> Any:
    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(pa.BufferReader(content), options=options).read_all()


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
