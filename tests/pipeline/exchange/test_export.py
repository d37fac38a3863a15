"""Exported features are exact, in one folder that appears complete or not at all."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from mser.cache import CacheError, Entry, EntrySpec, FeatureCache, UtteranceFeatures
from mser.pipeline.corpora import Corpus
from mser.pipeline.corpora.manifest import to_table
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.exchange import (
    ExportSettings,
    ImportSettings,
    export_features,
    import_features,
    to_safetensors,
)
from mser.pipeline.exchange.to_npy import file_names
from mser.tests.support.cache_entries import ODD_IDS
from mser.tests.support.train_runs import make_utterance as utterance

LAYERS, DIM = (0, 6, 12), 5


def filled(root: Path, ids: Sequence[str], dtype: str = "float16", **fields: Any) -> Entry:
    """An entry with layers 0, 6 and 12 in two shards, and a manifest."""
    cache = FeatureCache(root)
    spec = EntrySpec("ours", "speech", "our/encoder", {"weights": "a"}, LAYERS, DIM, dtype)
    writer = cache.writer(spec, {"made by": "a test"})
    noise = np.random.default_rng(1)
    features = [
        UtteranceFeatures(id, f"hash {id}", noise.normal(size=(3, 1 + n % 4, DIM)).astype(dtype))
        for n, id in enumerate(ids)
    ]
    half = (len(features) + 1) // 2
    for number, shard in enumerate((features[:half], features[half:])):
        if shard:
            writer.write_shard(number, shard)
    corpus = Corpus("ours", [utterance(id, **fields) for id in ids], ("a", "b"), "official")
    writer.publish(cache.write_manifest("ours", to_table(corpus, root, {}, {})))
    return cache.open("ours")


def settings(tmp_path: Path, form: str, **changes: Any) -> ExportSettings:
    fields: dict[str, Any] = {"dataset": "ours", "to": tmp_path / "out", **changes}
    return ExportSettings(str(tmp_path / "cache"), format=form, **fields)


def expected(entry: Entry, layers: Sequence[int] = LAYERS) -> dict[str, Any]:
    return {id: entry[id][[LAYERS.index(layer) for layer in layers]] for id in entry.ids}


# npy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_npy_files_are_imported_again_exactly_whatever_the_ids(tmp_path: Path, dtype: str) -> None:
    ids = [*ODD_IDS, "A", "a", "5", "0", "ids.csv", "entry.json", "._a", ".hidden", "%2e%2E"]
    entry = filled(tmp_path / "cache", ids, dtype)
    summary = export_features(settings(tmp_path, "npy"))
    out = tmp_path / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {out}
    assert len({path.name.lower() for path in files}) == len(ids) + 2 == summary.files
    assert json.loads((out / "entry.json").read_text()) == {
        "dataset": "ours",
        "modality": "speech",
        "encoder": "our/encoder",
        "layers": [0, 6, 12],
        "dim": DIM,
        "dtype": dtype,
    }

    import_features(ImportSettings(out, str(tmp_path / "cache"), "ours", "again"))
    again = FeatureCache(tmp_path / "cache").open("ours", "again")
    assert list(again.ids) == list(entry.ids)
    assert (again.spec.layers, again.spec.dtype) == (LAYERS, dtype)
    for id in ids:
        assert again[id].tobytes() == entry[id].tobytes()
        assert again[id].shape == entry[id].shape


def test_ids_csv_names_the_files_of_the_ids(tmp_path: Path) -> None:
    entry = filled(tmp_path / "cache", ["train/dia0_utt0", "b"])
    export_features(settings(tmp_path, "npy"))
    with (tmp_path / "out" / "ids.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["file"] for row in rows} == {
        "train/dia0_utt0": "train%2Fdia0_utt0.npy",
        "b": "b.npy",
    }
    for row in rows:
        array = np.load(tmp_path / "out" / row["file"], allow_pickle=False)
        np.testing.assert_array_equal(array, entry[row["id"]])


def test_file_names_of_ids() -> None:
    ids = ["0", "A", "a", "..", "", "x" * 200, "x" * 201, "é" * 40]
    assert file_names(ids) == {
        "0": "0",
        "A": "A",
        "a": "1",
        "..": "2",
        "": "3",
        "x" * 200: "x" * 200,
        "x" * 201: "4",
        "é" * 40: "5",
    }


@pytest.mark.parametrize("file", ["../secret.npy", "/secret.npy", "link/secret.npy", "link.npy"])
def test_ids_csv_with_a_file_outside_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    filled(tmp_path / "cache", ["a"])
    folder, secret = tmp_path / "theirs", tmp_path / "secret.npy"
    folder.mkdir()
    np.save(secret, np.ones((2, 3)))
    (folder / "link").symlink_to(tmp_path)
    (folder / "link.npy").symlink_to(secret)
    name = str(secret) if file.startswith("/") else file
    (folder / "ids.csv").write_text(f"id,file\na,{name}\n")
    with pytest.raises(PipelineError) as raised:
        import_features(ImportSettings(folder, str(tmp_path / "cache"), "ours", "again"))
    assert "ids.csv, line 2" in str(raised.value)
    assert "is outside the folder, and no file outside is read" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,file\na,a.npy\n", "has no column 'id'"),
        ("id,file\na\n", "line 2: it has no file: give an id and a file"),
        ("id,file\na,a.npy\na,a.npy\n", "has 1 ids more than once"),
        ('id,file\na,"a.npy\n', "line 2, cannot be read as CSV"),
        (b"id,file\n\xff,a.npy\n", "is not UTF-8"),
    ],
)
def test_a_damaged_ids_csv(tmp_path: Path, content: str | bytes, words: str) -> None:
    filled(tmp_path / "cache", ["a"])
    export_features(settings(tmp_path, "npy"))
    encoded = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "out" / "ids.csv").write_bytes(encoded)
    with pytest.raises(PipelineError) as raised:
        import_features(ImportSettings(tmp_path / "out", str(tmp_path / "cache"), "ours", "again"))
    assert words in str(raised.value)


# safetensors --------------------------------------------------------------------------------------


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = filled(tmp_path / "cache", ODD_IDS)
    monkeypatch.setattr(to_safetensors, "_MAX_BYTES", 200)
    summary = export_features(settings(tmp_path, "safetensors"))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"features-{number:05}.safetensors" for number in range(len(files))]
    assert 1 < len(files) == summary.files
    (tmp_path / "as-usual").touch()
    modes = {(tmp_path / "out" / name).stat().st_mode for name in files}
    assert modes == {(tmp_path / "as-usual").stat().st_mode}  # so that a group can read them
    read = {}
    for name in files:
        with safe_open(tmp_path / "out" / name, framework="numpy") as file:
            assert file.metadata()["layers"] == "0,6,12"
            assert file.metadata()["encoder"] == "our/encoder"
            assert file.metadata()["dataset"] == "ours"
            tensors = {id: file.get_tensor(id) for id in file.keys()}  # noqa: SIM118
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 200
            read.update(tensors)
    assert sorted(read) == list(entry.ids)
    for id, array in expected(entry).items():
        assert (read[id].dtype, read[id].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[id], array)


def test_an_id_that_cannot_be_the_name_of_a_tensor(tmp_path: Path) -> None:
    filled(tmp_path / "cache", ["a", "__metadata__"])
    with pytest.raises(PipelineError, match="a tensor cannot have the name of the utterance"):
        export_features(settings(tmp_path, "safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


# datasets -----------------------------------------------------------------------------------------

SPLIT_IDS = [f"{split}/{n}" for split in ("test", "train", "validation") for n in range(3)]


def with_splits(root: Path) -> Entry:
    entry = filled(root, SPLIT_IDS)
    cache = FeatureCache(root)
    utterances = [
        utterance(id, split=id.split("/")[0], text=f"“{id}”", speaker="Joey", session="1")
        for id in SPLIT_IDS
    ]
    corpus = Corpus("ours", utterances, ("a",), "official")
    writer = cache.writer(entry.spec, {})
    writer.publish(cache.write_manifest("ours", to_table(corpus, root, {}, {})))
    return cache.open("ours")


def test_datasets_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    entry = with_splits(tmp_path / "cache")
    export_features(settings(tmp_path, "datasets"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]
    assert not list((tmp_path / "out").glob(".*"))
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert sorted(loaded) == ["test", "train", "validation"]
    ids = []
    for split, part in loaded.items():
        assert part.split == split
        assert json.loads(part.info.description)["layers"] == [0, 6, 12]
        assert part.column_names == [
            "id",
            "text",
            "label",
            "speaker",
            "session",
            "dialogue",
            "split",
            "hidden_states",
        ]
        assert "float16" in str(part.features["hidden_states"])
        for row in part.with_format("numpy"):
            id = row["id"]
            ids.append(id)
            cells = {"text": f"“{id}”", "label": utterance(id).label, "speaker": "Joey"}
            cells |= {"session": "1", "dialogue": id, "split": split}
            assert {column: row[column] for column in cells} == cells
            np.testing.assert_array_equal(row["hidden_states"], entry[id])
    assert sorted(ids) == sorted(SPLIT_IDS)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_datasets_without_splits(tmp_path: Path, dtype: str) -> None:
    datasets = pytest.importorskip("datasets")
    entry = filled(tmp_path / "cache", ODD_IDS, dtype, label=None)
    export_features(settings(tmp_path, "datasets", layers=(12, 0)))
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert loaded["id"][:] == list(entry.ids)
    assert set(loaded["split"]) == set(loaded["label"]) == {None}
    for row in loaded:
        assert np.array(row["hidden_states"], dtype).tobytes() == (
            expected(entry, (12, 0))[row["id"]].tobytes()
        )
    assert str(loaded.features["hidden_states"]).count(dtype) == 1


def test_datasets_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with_splits(tmp_path / "cache")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    code = (
        "from pathlib import Path; from mser.pipeline.exchange import *; "
        f"export_features(ExportSettings({str(tmp_path / 'cache')!r}, 'ours', "
        f"Path({str(tmp_path / 'out')!r}), 'datasets'))"
    )
    cleared = ("HF_", "XDG_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(cleared)}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def test_datasets_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "cache", ["a"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PipelineError, match=r"pip install 'mser\[datasets\]'") as raised:
        export_features(settings(tmp_path, "datasets"))
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


# Selection and output folder ----------------------------------------------------------------------


def test_layers_are_the_encoders_own_numbers(tmp_path: Path) -> None:
    entry = filled(tmp_path / "cache", ["a", "b"])
    summary = export_features(settings(tmp_path, "npy", layers=(12, 0)))
    assert summary.layers == (12, 0)
    assert summary.bytes == sum(2 * entry.length(id) * DIM * 2 for id in entry.ids)
    for id, array in expected(entry, (12, 0)).items():
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{id}.npy"), array)
    assert json.loads((tmp_path / "out" / "entry.json").read_text())["layers"] == [12, 0]
    with pytest.raises(UsageError) as raised:
        export_features(settings(tmp_path, "npy", layers=(2,), to=tmp_path / "other"))
    assert str(raised.value) == (
        "layer 2 of 'our/encoder' is not in the cache, which holds layers 0,6,12: choose one of "
        "them, or extract with --layers 2"
    )


def test_an_entry_that_is_not_in_the_cache(tmp_path: Path) -> None:
    filled(tmp_path / "cache", ["a"])
    with pytest.raises(CacheError, match="another"):
        export_features(settings(tmp_path, "npy", encoder="another"))
    with pytest.raises(CacheError, match="theirs"):
        export_features(settings(tmp_path, "npy", dataset="theirs"))
    filled(tmp_path / "empty", [])
    with pytest.raises(PipelineError, match="has no utterance to export"):
        export_features(replace(settings(tmp_path, "npy"), cache=str(tmp_path / "empty")))
    with pytest.raises(UsageError, match="unknown format 'hdf' \\(known: datasets"):
        settings(tmp_path, "hdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "empty"]


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "cache", ["a"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="exists already: give a new or empty folder"):
        export_features(settings(tmp_path, "npy"))
    with pytest.raises(UsageError, match="exists already"):
        export_features(settings(tmp_path, "npy", to=tmp_path / "out" / "thesis.tex"))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
    (tmp_path / "out" / "thesis.tex").unlink()
    export_features(settings(tmp_path, "npy"))  # empty
    export_features(settings(tmp_path, "npy", to=tmp_path / "deep" / "down"))  # new
    for folder in ("out", "deep/down"):
        names = sorted(path.name for path in (tmp_path / folder).iterdir())
        assert names == ["a.npy", "entry.json", "ids.csv"]


@pytest.mark.parametrize("form", ["npy", "safetensors", "datasets"])
def test_a_failed_export_leaves_nothing(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "cache", ["a", "b"])

    def fail(self: Entry, ids: Sequence[str], layers: object = None) -> Iterator[Any]:
        if "b" in ids:
            assert not (tmp_path / "out").exists()  # so a killed export leaves nothing there
            raise CacheError("a shard is damaged")
        return iter([np.zeros((3, 1, DIM), "float16")])

    monkeypatch.setattr(Entry, "read", fail)
    with pytest.raises(CacheError, match="a shard is damaged"):
        export_features(settings(tmp_path, form))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_full_disk_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "cache", ["a"])
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(PipelineError, match="choose another --to, or fewer --layers"):
        export_features(settings(tmp_path, "npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_summary(tmp_path: Path) -> None:
    filled(tmp_path / "cache", ["a", "b"])
    summary = export_features(settings(tmp_path, "npy"))
    assert json.loads(json.dumps(summary.as_json()))["utterances"] == 2
    assert str(summary).splitlines()[:3] == [
        "ours, speech: our/encoder, layers 0,6,12 of width 5, float16",
        "  2 utterances as npy (0.0 MB in 4 files)",
        f"  {tmp_path / 'out'}",
    ]
