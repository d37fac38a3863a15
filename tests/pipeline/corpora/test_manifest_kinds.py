"""One corpus from each kind of table: equal utterances, types of cells, and errors."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.corpora import Corpus, Utterance
from mser.pipeline.corpora.manifest_file import COLUMNS, read_manifest
from mser.pipeline.errors import PipelineError

Row = dict[str, Any]


def as_csv(path: Path, rows: list[Row], delimiter: str = ",") -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def as_tsv(path: Path, rows: list[Row]) -> None:
    as_csv(path, rows, "\t")


def as_json_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_parquet(path: Path, rows: list[Row]) -> None:
    keys = dict.fromkeys(key for row in rows for key in row)
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), path)


WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {
    "csv": as_csv,
    "tsv": as_tsv,
    "jsonl": as_json_lines,
    "ndjson": as_json_lines,
    "parquet": as_parquet,
}
TYPED = ["jsonl", "parquet"]


def corpus_of(folder: Path, kind: str, *rows: Row) -> Corpus:
    WRITERS[kind](folder / f"mine.{kind}", list(rows))
    return read_manifest(folder / f"mine.{kind}", "mine")


def refusal(path: Path) -> str:
    with pytest.raises(PipelineError) as raised:
        read_manifest(path, "mine")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# One corpus from each kind ------------------------------------------------------------------------

WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"),
    min_size=1,
    max_size=8,
).filter(lambda text: text == text.strip())
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": WORDS, "text": WORDS},
        optional={
            "audio": WORDS,
            "label": st.sampled_from(["sad", "angry"]),
            "speaker": st.integers(0, 10**6).map(str) | WORDS,
            "turn": st.integers(-(10**6), 10**6),
            "split": st.sampled_from(["train", "dev", "Test"]),
            "unknown": WORDS,
        },
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row["id"],
)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_the_kind_of_file_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("kinds")
    first, *others = (corpus_of(folder, kind, *rows) for kind in WRITERS)
    assert [utterance.id for utterance in first.utterances] == [row["id"] for row in rows]
    for other in others:
        assert other.utterances == first.utterances
        assert (other.classes, other.protocol) == (first.classes, first.protocol)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_column_is_read(tmp_path: Path, kind: str) -> None:
    row = dict(zip(COLUMNS, ["a/1", "wav/a.wav", "Hm.", "sad", "s", "1", "d", 3], strict=False))
    (utterance,) = corpus_of(tmp_path, kind, {**row, "split": "dev", "age": 9}).utterances
    assert utterance == Utterance(
        "a/1", tmp_path / "wav/a.wav", "Hm.", "sad", "s", "1", "d", 3, "validation"
    )
    corpus = read_manifest(tmp_path / f"mine.{kind}", "mine")
    assert corpus.notes == (f"mine.{kind}: columns not used: age",)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_absolute_path_is_kept(tmp_path: Path, kind: str) -> None:
    (utterance,) = corpus_of(tmp_path, kind, {"id": "a", "audio": "/elsewhere/a.wav"}).utterances
    assert utterance.audio == Path("/elsewhere/a.wav")


# Types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPED)
def test_numbers_are_read_as_their_text(tmp_path: Path, kind: str) -> None:
    row = {"id": 17, "speaker": 7, "session": 2, "label": 0, "dialogue": 2.5, "turn": 4}
    (utterance,) = corpus_of(tmp_path, kind, row).utterances
    assert (utterance.id, utterance.speaker, utterance.session) == ("17", "7", "2")
    assert (utterance.label, utterance.dialogue, utterance.turn) == ("0", "2.5", 4)


@pytest.mark.parametrize("kind", TYPED)
def test_null_and_empty_cells_are_unknown(tmp_path: Path, kind: str) -> None:
    nothing: Row = dict.fromkeys(COLUMNS[1:])
    blank: Row = dict.fromkeys(COLUMNS[1:7], " ")
    corpus = corpus_of(tmp_path, kind, {"id": "a", **nothing}, {"id": "b", **nothing, **blank})
    for utterance in corpus.utterances:
        assert {getattr(utterance, column) for column in COLUMNS[1:]} == {None}
    assert corpus.classes == ()


@pytest.mark.parametrize("kind", TYPED)
def test_whole_numbers_that_a_gap_turned_into_floats(tmp_path: Path, kind: str) -> None:
    corpus = corpus_of(
        tmp_path,
        kind,
        {"id": "a", "session": 3.0, "turn": 1.0},
        {"id": "b", "session": math.nan, "turn": math.nan},
    )
    assert [(u.session, u.turn) for u in corpus.utterances] == [("3", 1), (None, None)]


def test_columns_of_other_types_in_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ID": pa.array(["a", "b"], pa.large_string()),
            "label": pa.array(["sad", None]).dictionary_encode(),
            "speaker": pa.array(np.array([1, 2], np.uint8)),
            "meta": pa.array([{"x": 1}, None]),
        }
    )
    pq.write_table(table, tmp_path / "mine.parquet")
    corpus = read_manifest(tmp_path / "mine.parquet", "mine")
    assert [(u.id, u.label, u.speaker) for u in corpus.utterances] == [
        ("a", "sad", "1"),
        ("b", None, "2"),
    ]
    assert corpus.notes == ("mine.parquet: columns not used: meta",)


@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": None}, "its id is empty: give each utterance an id"),
        ({"id": "  "}, "its id is empty"),
        ({"id": "a"}, "its id 'a' is also the id of {place} 1: give each utterance its own id"),
        ({"id": "b", "turn": 1.5}, "its turn is '1.5': write a whole number"),
        ({"id": "b", "turn": math.inf}, "its turn is 'inf'"),
        ({"id": "b", "split": "training"}, "its split is 'training': write train, validation"),
        ({"id": "b", "label": True}, "its label is True: write text or a number"),
        ({"id": "b", "audio": {"path": "b.wav"}}, "its audio is {{'path': 'b.wav'}}: write text"),
        ({"id": "b", "text": ["x"] * 99}, "...: write text or a number"),
    ],
)
def test_a_row_with_a_wrong_value(tmp_path: Path, kind: str, row: Row, words: str) -> None:
    good: Row = {"id": "a"}
    WRITERS[kind](tmp_path / f"mine.{kind}", [good, row])
    place = "row" if kind == "parquet" else "line"
    message = refusal(tmp_path / f"mine.{kind}")
    assert f", {place} 2: " in message
    assert words.format(place=place) in message


# Damaged files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"id": "a"}\n\n{"id": "b"\n', "line 3, cannot be read as JSON (Expecting"),
        (
            b'[{"id": "a"}]\n',
            "line 1, is not a JSON object: write one JSON object per line, such as",
        ),
        (b'{"id": "a"}\n"b"\n', "line 2, is not a JSON object"),
        (b"id,label\na,sad\n", "line 1, cannot be read as JSON"),
        (b"[" * 100_000, "line 1, cannot be read as JSON"),
        (b'{"id": "a", "ID": "b"}\n', "line 1, has the column 'id' twice"),
        (b'{"audio": "a.wav"}\n', "line 1: its id is empty"),
        (b'{"id": "a", "text": "\\ud800"}\n', "line 1: its text is '\\ud800': write valid Unicode"),
        (b'{"id": "a\xff"}\n', "is not UTF-8"),
        (b"\n\n", "contains no utterance"),
    ],
)
def test_a_line_that_is_not_a_row(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "mine.jsonl").write_bytes(content)
    assert words in refusal(tmp_path / "mine.jsonl")


def test_lines_may_have_different_columns(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('\ufeff{"Id": "a", "x": 1}\r\n\n{"id": "b", "label": "sad", "y": []}', "utf-8")
    corpus = read_manifest(path, "mine")
    assert [(u.id, u.label) for u in corpus.utterances] == [("a", None), ("b", "sad")]
    assert corpus.notes == ("mine.jsonl: columns not used: x, y",)


def test_a_unicode_line_separator_in_a_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "text": "one\u2028two"}\n{"id": "b"}\n', "utf-8")
    assert [u.text for u in read_manifest(path, "mine").utterances] == ["one\u2028two", None]


@pytest.mark.parametrize("kept", [0, 20, -20])
def test_a_parquet_file_that_is_cut_off(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "mine.parquet"
    as_parquet(path, [{"id": str(n), "text": f"text {n}"} for n in range(99)])
    path.write_bytes(path.read_bytes()[:kept])
    assert "cannot be read as Parquet" in refusal(path)


def test_a_parquet_file_whose_pages_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    as_parquet(path, [{"id": str(n), "text": f"text {n}"} for n in range(99)])
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    assert "cannot be read as Parquet" in refusal(path)


def test_a_parquet_file_without_ids_and_one_without_rows(tmp_path: Path) -> None:
    as_parquet(tmp_path / "mine.parquet", [{"name": "a"}])
    assert "has no column 'id'" in refusal(tmp_path / "mine.parquet")
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert "contains no utterance" in refusal(tmp_path / "none.parquet")
    two = pa.table([pa.array(["a"]), pa.array(["b"])], names=["id", "ID"])
    pq.write_table(two, tmp_path / "two.parquet")
    assert "the column 'id' twice" in refusal(tmp_path / "two.parquet")
