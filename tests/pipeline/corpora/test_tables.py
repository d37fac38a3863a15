"""The reader of tables: places, columns and errors that manifests do not cover."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mser.pipeline.corpora.tables import read_table
from mser.pipeline.errors import PipelineError


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_column_names_are_exact_unless_case_is_ignored(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "ID, Label\na,sad\n")
    assert list(read_table(path)) == [("line 2", {"ID": "a", " Label": "sad"})]
    rows = list(read_table(path, ("id",), required=("id",), ignore_case=True))
    assert rows == [("line 2", {"id": "a", "label": "sad"})]
    with pytest.raises(PipelineError, match=r"a.csv has no column 'id' \(its columns: ID,  Label"):
        list(read_table(path, required=("id",)))


def test_a_row_is_named_by_its_last_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", '\nid,text\na,"two\nlines"\n\nb,one\n')
    assert [row.place for row in read_table(path)] == ["line 4", "line 6"]


def test_tabs_separate_the_cells_of_a_tsv(tmp_path: Path) -> None:
    path = written(tmp_path / "A.TSV", 'id\ttext\na\tWell, no\nb\t"a\tb"\n')
    assert [row.cells["text"] for row in read_table(path)] == ["Well, no", "a\tb"]


def test_only_used_columns_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"Id": ["a"], "x": [1], "y": [2]}), path)
    (row,) = read_table(path, ("id", "y"), ignore_case=True)
    assert row == ("row 1", {"id": "a", "x": None, "y": 2})
    (row,) = read_table(path)
    assert row.cells == {"Id": "a", "x": 1, "y": 2}


def test_a_column_that_occurs_twice_is_an_error_if_it_is_used(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,x,x\na,1,2\n")
    assert len(list(read_table(path, ("id",)))) == 1
    with pytest.raises(PipelineError, match=r"a\.csv has the column 'x' twice: remove one"):
        list(read_table(path))
