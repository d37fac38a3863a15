"""The rows of a manifest, by the kind of its file: CSV, JSON Lines or Parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import PipelineError
from .manifest_row import COLUMNS, columns_of

_SHAPE = """write an utterance a line, such as {"id": "a", "audio": "a.wav", "label": "sad"}"""

Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""Where a row stands (``line 3``), and its cells by the name of the column."""


def read_csv(path: Path) -> Rows:
    """Read a table with a first line of columns' names, separated by commas.

    Raises:
        PipelineError: it is no such table.
        UnicodeDecodeError: it is not UTF-8.
    """
    # newline="": the csv module takes any line end, and keeps one that stands in a cell.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        columns: list[str] = []
        try:
            for row in reader:
                if not row:  # an empty line
                    continue
                if not columns:
                    columns = _checked(
                        path, row, "its first line must name the columns, separated by commas, of"
                    )
                    continue
                if len(row) > len(columns):
                    raise PipelineError(
                        f"{path}, line {reader.line_num}: it has {len(row)} cells for "
                        f"{len(columns)} columns: put a cell that holds a comma in double quotes"
                    )
                cells = [*row, *[""] * (len(columns) - len(row))]
                yield f"line {reader.line_num}", dict(zip(columns, cells, strict=True))
        except csv.Error as error:
            raise PipelineError(
                f"{path}, behind line {reader.line_num}: {error}; write it as a CSV file with "
                "commas"
            ) from error


def read_json_lines(path: Path) -> Rows:
    """Read a JSON object a line; the keys are the columns, and a line may lack some of them.

    Raises:
        PipelineError: a line is no JSON object.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", str(error))
                raise PipelineError(
                    f"{path}, line {number} is no JSON ({reason}): {_SHAPE}"
                ) from error
            if not isinstance(row, dict):
                raise PipelineError(f"{path}, line {number} is no JSON object: {_SHAPE}")
            try:
                columns = columns_of(list(row))
            except ValueError as error:
                raise PipelineError(f"{path}, line {number}: {error}") from error
            yield f"line {number}", dict(zip(columns, row.values(), strict=True))


def read_parquet(path: Path) -> Rows:
    """Read a Parquet file, a batch of rows at a time, and of it only the columns that are used.

    Raises:
        PipelineError: it is no Parquet file, or is damaged.
    """
    with path.open("rb") as file:
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            columns = _checked(path, names, "it may have the columns")
            used = [name for name, column in zip(names, columns, strict=True) if column in COLUMNS]
            unread = dict.fromkeys(column for column in columns if column not in COLUMNS)
            # On this thread alone: Arrow's own may still be at it when Python ends, and abort it.
            batches = table.iter_batches(columns=used, use_threads=False)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                cells = {name.strip().lower(): value for name, value in row.items()}
                yield f"row {number}", {**unread, **cells}
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise PipelineError(f"{path} cannot be read as Parquet: {reason}") from error


READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}
"""By the suffix of the file."""


def _checked(path: Path, names: list[str], advice: str) -> list[str]:
    try:
        columns = columns_of(names)
    except ValueError as error:
        raise PipelineError(f"{path}: {error}") from error
    if "id" not in columns:
        raise PipelineError(f"{path} has no column 'id': {advice} {', '.join(COLUMNS)}")
    return columns
