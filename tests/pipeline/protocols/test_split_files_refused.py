"""What is no split file is refused in one sentence that says what one is."""

import json
from pathlib import Path

import pytest

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.protocols.split_files import read_split_file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "id", "of no kind that can be read: give a run's folds.json, a table"),
        ("a.csv", "id,label\na,sad\n", "has the form of no split file: give a run's"),
        ("a.csv", "id;fold;part\na;1;test\n", "has the form of no split file"),
        ("a.csv", "fold,part\n1,test\n", "has the form of no split file"),
        ("a.csv", "", "names no utterance"),
        ("a.csv", "id,part\na,train\nb,\n", "a.csv, row 2: its part is empty"),
        ("a.csv", "id,fold\na,1\n,2\n", "a.csv, row 2: its id is empty"),
        ("a.csv", "id,part\na,train\nb,testing\n", "row 2: its part is 'testing': write train"),
        ("a.csv", "id,part\na,train\nb,train\n", "fold 'a' of .*a.csv has no test part"),
        ("a.csv", "id,fold\na,1\nb,1\n", "fold '1' of .*a.csv has no train part"),
        ("a.csv", b"id,part\n\xff,train\n", "cannot be read as CSV"),
        ("a.jsonl", "{", "cannot be read as JSON Lines"),
        ("a.jsonl", "[1]\n", "has the form of no split file"),
        ("a.parquet", "PAR1", "cannot be read as Parquet"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1, 2]", "has the form of no split file"),
        ("a.json", '{"folds": []}', "holds no fold"),
        ("a.json", '{"folds": [1]}', "has the form of no split file"),
        ("a.json", '{"folds": [{"fold": 1, "train": "ab"}]}', "has the form of no split file"),
        ("a.json", '{"folds": [{"fold": 1, "train": ["a"]}]}', "fold '1' of .* has no test part"),
        ("x_test_fold_1.jsonl", '{"wav": "a.wav"}\n', "is the list of one part: give the folder"),
        ("train_meta_data.json", '{"meta_data": []}', "is the list of one part: give the folder"),
    ],
)
def test_what_is_no_split_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PipelineError, match=message) as error:
        read_split_file(path)
    assert "\n" not in str(error.value)


def test_a_path_without_a_split_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no split file '.*none.csv': give"):
        read_split_file(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="holds no lists of folds: give"):
        read_split_file(tmp_path)


def test_a_fold_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    fold = {"fold": "one", "train": ["a"], "validation": ["b"], "test": ["c"]}
    path.write_text(json.dumps({"folds": [fold, fold]}))
    with pytest.raises(PipelineError, match="holds the fold 'one' twice"):
        read_split_file(path)


def test_a_list_of_emobox_that_lacks_its_paths_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"x_{part}_fold_1.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(PipelineError, match=r"x_.*_fold_1.jsonl does not name its clips as"):
        read_split_file(tmp_path)
