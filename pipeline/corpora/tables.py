"""The reader of tables: CSV, TSV, JSON Lines and Parquet files, chosen by the file's suffix.

The columns of a .csv are separated by commas, semicolons or tabs. The reader yields rows of named
cells. What the columns mean, and which values are allowed, is decided by the callers: manifests,
split files, a run's predictions, and the tables of the corpora.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PipelineError, UsageError

_TEXTS = (pa.string(), pa.large_string())
_JSON_ADVICE = """write one JSON object per line, such as {"id": "a"}"""


class Row(NamedTuple):
    """One row of a table.

    ``place`` names the row in error messages (``line 3``, or ``row 3`` of a Parquet file);
    ``cells`` are the values by column name. Cells of CSV and TSV files are strings.
    """

    place: str
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class _Columns:
    """Which columns a caller wants, and the checks of column names for all kinds of files."""

    path: Path
    used: Sequence[str] | None
    required: Sequence[str]
    ignore_case: bool
    prefixes: tuple[str, ...] = ()

    def named(self, names: Sequence[str], place: str = "") -> list[str]:
        """Return the column names as the caller knows them; a used one must not occur twice."""
        columns = [name.strip().lower() for name in names] if self.ignore_case else list(names)
        for column in columns if self.used is None else self.used:
            if column and columns.count(column) > 1:
                raise PipelineError(
                    f"{self.path}{place} has the column '{column}' twice: remove one of them"
                )
        return columns

    def header(self, names: Sequence[str]) -> list[str]:
        """Return the columns of a file that names them once; the required ones must be there."""
        columns = self.named(names)
        for column in self.required:
            if column not in columns:
                raise PipelineError(
                    f"{self.path} has no column '{column}' (its columns: {', '.join(columns)}): "
                    "add it"
                )
        return columns


def read_table(
    path: Path,
    used: Sequence[str] | None = None,
    *,
    required: Sequence[str] = (),
    ignore_case: bool = False,
    prefixes: tuple[str, ...] = (),
) -> Iterator[Row]:
    """Yield the rows of a table, in the order of the file; empty lines are skipped.

    Args:
        path: the file; its suffix, in small or capital letters, is one of ``SUFFIXES``.
        used: the columns that the caller reads; all by default. Other columns appear in the cells
            as well, but those of a Parquet file are not read unless they hold texts: their cells
            are ``None``.
        required: columns that a CSV, TSV or Parquet file must have. The lines of a JSON Lines file
            may differ in their columns.
        ignore_case: whether to strip the column names and write them in small letters.
        prefixes: beginnings of the names of further columns that the caller reads.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: the suffix is not known.
        PipelineError: the file is damaged, not UTF-8, or not of the kind of its suffix; a required
            column is missing; or a used column occurs twice.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"'{path}' is not a table that can be read: give a file that ends in "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    return reader(path, _Columns(path, used, required, ignore_case, prefixes))


def cell_text(cells: Mapping[str, Any], column: str) -> str | None:
    """Return a cell as text, without the space around it; ``None`` if it is missing or empty.

    A float with an integer value becomes that integer, because pandas writes whole numbers so in a
    column with gaps. NaN, which pandas writes for a gap, is ``None``.

    Raises:
        ValueError: the cell is neither text nor a number, or is not valid Unicode.
    """
    value = cells.get(column)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer():
            value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        shown = repr(value)
        shown = shown if len(shown) < 60 else f"{shown[:57]}..."
        raise ValueError(f"its {column} is {shown}: write text or a number")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"its {column} is {text!r}: write valid Unicode") from None
    return text or None


def unreadable(where: str, kind: str, error: Exception, advice: str) -> PipelineError:
    """Return the error for a file that is not of its kind; ``where`` names the file and line."""
    reason = " ".join(str(getattr(error, "msg", error)).split())
    return PipelineError(f"{where} cannot be read as {kind} ({reason}): {advice}")


def _read_csv(path: Path, wanted: _Columns, delimiter: str = ",") -> Iterator[Row]:
    # newline="": the csv module takes any line end, and keeps those inside a cell.
    with path.open(encoding="utf-8-sig", newline="") as file:
        columns: list[str] = []
        lines = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            if delimiter == ",":
                lines = csv.reader(file, strict=True, delimiter=_delimiter(file))
            for line in lines:
                if not line:
                    continue
                if not columns:
                    columns = wanted.header(line)
                    continue
                if len(line) > len(columns):
                    raise PipelineError(
                        f"{path}, line {lines.line_num}: it has {len(line)} cells for "
                        f"{len(columns)} columns: put a cell that contains the separator in "
                        "double quotes"
                    )
                cells = [*line, *[""] * (len(columns) - len(line))]
                yield Row(f"line {lines.line_num}", dict(zip(columns, cells, strict=True)))
        except csv.Error as error:
            advice = "correct the quotes there"
            raise unreadable(f"{path}, line {lines.line_num},", "CSV", error, advice) from error
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
    if not columns and wanted.required:
        raise PipelineError(f"{path} is empty: name the columns in its first line")


def _delimiter(file: TextIO) -> str:
    """Return what separates the columns of a .csv: a spreadsheet may write semicolons or tabs."""
    start = file.tell()
    header = next((line for line in file if line.strip()), "")
    file.seek(start)
    return next((mark for mark in ",;\t" if mark in header), ",")


def _read_tsv(path: Path, wanted: _Columns) -> Iterator[Row]:
    return _read_csv(path, wanted, "\t")


def _read_json_lines(path: Path, wanted: _Columns) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                place = f"{path}, line {number},"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise unreadable(place, "JSON", error, _JSON_ADVICE) from error
                if not isinstance(row, dict):
                    raise PipelineError(f"{place} is not a JSON object: {_JSON_ADVICE}")
                columns = wanted.named(list(row), f", line {number},")
                yield Row(f"line {number}", dict(zip(columns, row.values(), strict=True)))
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error


def _read_parquet(path: Path, wanted: _Columns) -> Iterator[Row]:
    """Read a batch of rows at a time, and only the columns that are used or hold texts."""
    with path.open("rb") as file:
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            texts = {field.name for field in table.schema_arrow if field.type in _TEXTS}
            columns = wanted.header(names)
            renamed = dict(zip(names, columns, strict=True))
            read = [
                name
                for name, column in renamed.items()
                if wanted.used is None
                or column in wanted.used
                or column.startswith(wanted.prefixes)
                or name in texts
            ]
            unread = dict.fromkeys(columns)
            # On this thread alone: Arrow's threads may still run when Python ends, and abort it.
            batches = table.iter_batches(columns=read, use_threads=False)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                cells = {renamed[name]: value for name, value in row.items()}
                yield Row(f"row {number}", unread | cells)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(str(path), "Parquet", error, "write the file again") from error


def _not_utf8(path: Path, error: UnicodeDecodeError) -> PipelineError:
    return PipelineError(f"{path} is not UTF-8 ({error}): convert it")


_READERS: dict[str, Callable[[Path, _Columns], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
"""The suffixes of the files that can be read."""
