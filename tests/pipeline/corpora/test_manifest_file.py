"""A corpus from a manifest: what a CSV file may contain, and the errors of its rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mser.pipeline.corpora.manifest import COLUMNS, from_table, to_table
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.corpora.utterance import Utterance
from mser.pipeline.errors import PipelineError, UsageError


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(PipelineError) as raised:
        read_manifest(written(tmp_path, content), "mine")
    assert str(tmp_path / "mine.csv") in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_column_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "id,audio,text,label,speaker,session,dialogue,turn,split\n"
        'a/1,wav/a 1.wav,"Well, ""no"".",sad,Joey/Drake,1,d1,-2,dev\n'
        "b,/elsewhere/b.wav,Grüße 🙂,angry,,,,,test\n",
    )
    corpus = read_manifest(path, "mine")
    assert corpus.name == "mine"
    assert corpus.classes == ("angry", "sad")
    assert corpus.protocol == "official"
    assert corpus.notes == ()
    first = Utterance(
        "a/1",
        tmp_path / "wav/a 1.wav",
        'Well, "no".',
        "sad",
        "Joey/Drake",
        "1",
        "d1",
        -2,
        "validation",
    )
    second = Utterance(
        "b", Path("/elsewhere/b.wav"), "Grüße 🙂", "angry", None, None, None, None, "test"
    )
    assert corpus.utterances == [first, second]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_only_the_id_is_required(tmp_path: Path, newline: str, mark: str) -> None:
    lines = [mark + "Label, ID", "happy,a", "", " ,b"]
    corpus = read_manifest(written(tmp_path, newline.join(lines)), "mine")
    assert [(u.id, u.label) for u in corpus.utterances] == [("a", "happy"), ("b", None)]
    assert corpus.utterances[0].audio is None
    assert corpus.classes == ("happy",)
    assert corpus.protocol == "leave-one-session-out"  # there is no split


@pytest.mark.parametrize("split", ["dev", "valid", "val", "validation", "Dev"])
def test_the_validation_split_has_several_names(tmp_path: Path, split: str) -> None:
    corpus = read_manifest(written(tmp_path, f"id,split\na,{split}\n"), "mine")
    assert corpus.utterances[0].split == "validation"


def test_a_partial_split_is_not_an_official_one(tmp_path: Path) -> None:
    corpus = read_manifest(written(tmp_path, "id,split\na,train\nb,\n"), "mine")
    assert corpus.protocol == "leave-one-session-out"


@pytest.mark.parametrize(
    ("content", "protocol"),
    [
        ("id,speaker\na,7\nb,8\n", "leave-one-speaker-out"),
        ("id,speaker\na,7\nb,\n", "leave-one-session-out"),
        ("id,speaker,session\na,7,1\nb,8,\n", "leave-one-session-out"),
        ("id,speaker,split\na,7,train\nb,8,test\n", "official"),
    ],
)
def test_the_protocol_follows_from_the_columns(tmp_path: Path, content: str, protocol: str) -> None:
    assert read_manifest(written(tmp_path, content), "mine").protocol == protocol


def test_unused_columns_are_listed(tmp_path: Path) -> None:
    corpus = read_manifest(written(tmp_path, "id,scenario,Take,\na,1,2,\n"), "mine")
    assert corpus.notes == ("mine.csv: columns not used: scenario, take",)
    assert corpus.classes == ()


def test_other_columns_are_kept_in_the_manifest_of_the_cache(tmp_path: Path) -> None:
    text = "id,Scenario,take,empty,duration\na,script01,1,,2\nb,,2,,3\n"
    corpus = read_manifest(written(tmp_path, text), "mine")
    assert corpus.columns == {"scenario": {"a": "script01"}, "take": {"a": "1", "b": "2"}}
    kept, _ = from_table(to_table(corpus, tmp_path, {}, {"a": 0.5}))
    assert kept == corpus
    without = read_manifest(written(tmp_path, "id\na\n"), "mine")
    assert to_table(without, tmp_path, {}, {}).column_names == list(COLUMNS)


def test_lists_and_numbers_of_other_columns(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "scenario": 3, "vector": [1, 2]}\n')
    corpus = read_manifest(tmp_path / "mine.jsonl", "mine")
    assert corpus.columns == {"scenario": {"a": "3"}}
    table = pa.table({"id": ["a"], "scenario": ["s1"], "vector": [[1.0, 2.0]], "number": [4]})
    pq.write_table(table, tmp_path / "mine.parquet")
    assert read_manifest(tmp_path / "mine.parquet", "mine").columns == {"scenario": {"a": "s1"}}


def test_an_id_is_kept_unchanged(tmp_path: Path) -> None:
    ids = ["../../etc/passwd", " a b ", "line\nend", "x" * 5000, "日本語"]
    rows = "".join(f'"{id}"\n' for id in ids)
    corpus = read_manifest(written(tmp_path, f"id\n{rows}"), "mine")
    assert [utterance.id for utterance in corpus.utterances] == ids
    kept, _ = from_table(to_table(corpus, tmp_path, {}, {}))
    assert [utterance.id for utterance in kept.utterances] == ids


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,label\na,sad\n", "no column 'id'"),
        ("", "is empty: name the columns in its first line"),
        ("id,label\n", "contains no utterance"),
        ("id,label\na,sad\n\nb,sad\na,sad\n", "line 5: its id 'a' is also the id of line 2"),
        ("id,label\na,sad\n ,sad\n", "line 3: its id is empty"),
        ('id,text\na,x\nb,"n\nb",c,d\n', "line 4: it has 4 cells for 2 columns"),
        ("id,audio\na,a\0.wav\n", "line 2: its audio is 'a\\x00.wav', which cannot be a file name"),
        ("id,split\na,train\nb,training\n", "line 3: its split is 'training': write train, "),
        ("id,turn\na,first\n", "line 2: its turn is 'first': write a whole number"),
        ("id,turn\na,99999999999999999999\n", "line 2: its turn is '99999999999999999999'"),
        ("id,text\na,Well, no\n", "line 2: it has 3 cells for 2 columns: put a cell that contains"),
        ("id,label,label\na,sad,sad\n", "the column 'label' twice"),
        (
            'id,text\na,"never closed\nb,c\n',
            "line 3, cannot be read as CSV (unexpected end of data)",
        ),
        ("id,text\na,Grüße\n".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_an_error_names_the_file_in_one_sentence(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    assert words in refusal(tmp_path, content)


def test_a_missing_file(tmp_path: Path) -> None:
    for kind in ("csv", "tsv", "jsonl", "ndjson", "parquet"):
        with pytest.raises(UsageError, match=f"there is no manifest .*mine.{kind}"):
            read_manifest(tmp_path / f"mine.{kind}", "mine")


@pytest.mark.parametrize("name", ["mine", "mine.xlsx", "mine.json", "mine.csv.gz"])
def test_a_file_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("id\na\n")
    with pytest.raises(
        UsageError, match=r"a file that ends in \.csv, \.tsv, \.jsonl, \.ndjson or \.parquet"
    ):
        read_manifest(tmp_path / name, "mine")


def test_usual_names_of_columns_are_taken_with_a_note(tmp_path: Path) -> None:
    content = "id,Path,emotion,transcript\na,a.wav,sad,Oh no.\n"
    corpus = read_manifest(written(tmp_path, content), "mine")
    (one,) = corpus.utterances
    assert (one.audio, one.label, one.text) == (tmp_path / "a.wav", "sad", "Oh no.")
    assert corpus.notes == (
        "mine.csv: column 'path' is read as audio",
        "mine.csv: column 'transcript' is read as text",
        "mine.csv: column 'emotion' is read as label",
    )
    assert corpus.columns == {}


def test_a_usual_name_beside_the_column_itself_is_a_further_column(tmp_path: Path) -> None:
    content = "id,label,emotion,text,utterance,wav,file\na,sad,grief,Oh no.,7,a.wav,b.wav\n"
    corpus = read_manifest(written(tmp_path, content), "mine")
    (one,) = corpus.utterances
    assert (one.label, one.text, one.audio) == ("sad", "Oh no.", tmp_path / "a.wav")
    assert corpus.columns == {
        "emotion": {"a": "grief"},
        "utterance": {"a": "7"},
        "file": {"a": "b.wav"},
    }


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_columns_too(tmp_path: Path, mark: str) -> None:
    rows = [["id", "text", "label"], ["a", "Well, no.", "sad"], ["b", f'"x{mark}y"', "calm"]]
    content = "\ufeff" + "".join(mark.join(row) + "\r\n" for row in rows)
    corpus = read_manifest(written(tmp_path, content), "mine")
    assert [one.text for one in corpus.utterances] == ["Well, no.", f"x{mark}y"]
    assert corpus.classes == ("calm", "sad")
    tsv = tmp_path / "mine.tsv"
    tsv.write_text("id\tlabel\na\tsad;calm\n")
    assert read_manifest(tsv, "mine").classes == ("sad;calm",)
