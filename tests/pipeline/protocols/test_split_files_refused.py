"""Each wrong split file is refused with one sentence that names it and lists the forms."""

import json
from pathlib import Path

import pytest

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.protocols.split_files import read_split_file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "id", "is not a split file by its suffix: give a run's folds.json, a table"),
        ("a.csv", "id,label\na,sad\n", "does not have the form of a split file: give a run's"),
        ("a.csv", "id|fold|part\na|1|test\n", "does not have the form of a split file"),
        ("a.csv", "fold,part\n1,test\n", "does not have the form of a split file"),
        ("a.csv", "", "contains no utterance"),
        ("a.csv", "id,part\na,train\nb,\n", "a.csv, line 3: its part is empty"),
        ("a.csv", "id,fold\na,1\n,2\n", "a.csv, line 3: its id is empty"),
        ("a.csv", "id,part\na,train\nb,testing\n", "line 3: its part is 'testing': write train"),
        ("a.csv", "id,part\na,train\nb,train\n", "fold 'a' of .*a.csv has no test part"),
        ("a.csv", "id,fold\na,1\nb,1\n", "fold '1' of .*a.csv has no train part"),
        ("a.csv", b"id,part\n\xff,train\n", "is not UTF-8"),
        ("a.csv", "id,part\na,train,x\n", "line 2: it has 3 cells for 2 columns"),
        (
            "a.jsonl",
            '{"id": ["a"], "part": "test"}\n',
            "line 1: its id is .*: write text or",
        ),
        ("a.jsonl", "{", "line 1, cannot be read as JSON"),
        ("a.jsonl", "[1]\n", "line 1, is not a JSON object"),
        ("a.parquet", "PAR1", "cannot be read as Parquet"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1, 2]", "does not have the form of a split file"),
        ("a.json", '{"folds": []}', "contains no fold"),
        ("a.json", '{"folds": [1]}', "does not have the form of a split file"),
        (
            "a.json",
            '{"folds": [{"fold": 1, "train": "ab"}]}',
            "does not have the form of a split file",
        ),
        ("a.json", '{"folds": [{"fold": 1, "train": ["a"]}]}', "fold '1' of .* has no test part"),
        ("x_test_fold_1.jsonl", '{"wav": "a.wav"}\n', "is the list of one part: give the folder"),
        ("train_meta_data.json", '{"meta_data": []}', "is the list of one part: give the folder"),
    ],
)
def test_a_file_that_is_not_a_split_file_is_refused(
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
    with pytest.raises(UsageError, match="contains no lists of folds: give"):
        read_split_file(tmp_path)


def test_two_folds_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    fold = {"fold": "one", "train": ["a"], "validation": ["b"], "test": ["c"]}
    path.write_text(json.dumps({"folds": [fold, fold]}))
    with pytest.raises(PipelineError, match="has two folds 'one'"):
        read_split_file(path)


def test_a_list_of_emobox_without_paths_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"x_{part}_fold_1.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(PipelineError, match=r"x_.*_fold_1.jsonl does not name its clips by"):
        read_split_file(tmp_path)
