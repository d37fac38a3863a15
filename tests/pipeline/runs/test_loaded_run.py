"""A finished run in Python."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

import mser
from mser.pipeline.errors import UsageError
from mser.tests.support.train_runs import BOTH, CLASSES, made, made_both, official

FOLD = "test"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of two seeds on a cache made by hand."""
    folder = tmp_path_factory.mktemp("loaded")
    cache = made_both(folder / "cache", official())
    settings = made(cache, folder / "run", "epochs=2", head="linear", seeds=(0, 3), encoders=BOTH)
    return mser.train_head(settings)


def rows(run: Any) -> list[dict[str, str]]:
    with (run.path / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_holds_its_scores_and_predictions(run: Any) -> None:
    loaded = mser.load_run(str(run.path))
    assert loaded == run
    assert loaded.classes == CLASSES
    assert loaded.seeds == (0, 3)
    expected = rows(run)
    labels, predicted = ([row[key] for row in expected] for key in ("label", "predicted"))
    np.testing.assert_array_equal(
        loaded.confusion, confusion_matrix(labels, predicted, labels=list(CLASSES))
    )
    table = loaded.predictions
    assert table["id"].to_pylist() == [row["id"] for row in expected]
    assert table["p_sad"].to_pylist() == [float(row["p_sad"]) for row in expected]
    assert table["seed"].to_pylist() == [int(row["seed"]) for row in expected]
    assert table["speaker"].to_pylist() == [None] * len(expected)
    assert repr(loaded) == f"<run {run.path}: linear on made-up, official, 2 trainings>"


def test_a_name_that_means_nothing_elsewhere_is_a_name(run: Any, tmp_path: Path) -> None:
    copied = shutil.copytree(run.path, tmp_path / "run")
    path = copied / "predictions.csv"
    header, first, *others = path.read_text().splitlines()
    _, label, _, *numbers = first.split(",")
    changed = ",".join(["NA", label, label, *numbers[:-3], "null", "n/a", "nan"])
    path.write_text("\n".join([header, changed, *others, ""]))
    table = mser.load_run(copied).predictions
    values = {name: table[name][0].as_py() for name in ("id", "speaker", "session", "dialogue")}
    assert values == {"id": "NA", "speaker": "null", "session": "n/a", "dialogue": "nan"}
    assert table["speaker"][1].as_py() is None


def test_a_module_is_the_trained_head_and_embed_gives_the_input_of_its_last_layer(
    run: Any,
) -> None:
    (fold,) = run.folds
    module = run.module(fold=fold, seed=3, device="cpu")
    assert not module.training
    ids, vectors = run.embed(fold=fold, seed=3, device="cpu")
    logits = vectors @ module.classifier.weight.detach().numpy().T
    logits = torch.tensor(logits) + module.classifier.bias.detach()
    expected = {row["id"]: row for row in rows(run) if row["seed"] == "3"}
    assert ids == [row["id"] for row in expected.values()]
    for id, probabilities in zip(ids, logits.double().softmax(1).tolist(), strict=True):
        of_run = [float(expected[id][f"p_{name}"]) for name in CLASSES]
        np.testing.assert_allclose(probabilities, of_run, rtol=1e-4)
    some, few = run.embed([ids[4], ids[1]], seed=3, device="cpu")
    assert some == [ids[4], ids[1]]
    np.testing.assert_array_equal(few, vectors[[4, 1]])
    train, _ = run.embed(["train/u00"], device="cpu")
    assert train == ["train/u00"]


def test_wrong_names_are_one_sentence(run: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown fold of this run 'Ses01'"):
        run.module(fold="Ses01")
    with pytest.raises(UsageError, match="unknown seed of this run '1'"):
        run.module(seed=1)
    with pytest.raises(UsageError, match="'nobody' is not an utterance of fold"):
        run.embed(["nobody"])
    with pytest.raises(UsageError, match="is not the folder of a run"):
        mser.load_run(tmp_path)


def test_runs_are_given_as_texts_paths_or_runs(run: Any, tmp_path: Path) -> None:
    again = mser.evaluate(str(run.path), "speech", device="cpu")
    assert again.facts["missing"] == ["speech"]
    assert mser.evaluate(run, device="cpu").facts["aggregate"] == again.facts["as_trained"]
    compared = mser.compare(str(run.path), run, "wa", resamples=100)
    assert compared.metrics["wa"].difference == 0
    assert mser.report(run, str(tmp_path / "one.html")).runs == (run.path.resolve(),)
    assert len(mser.report([str(run.path), run], tmp_path / "two.html").runs) == 1


def test_settings_have_the_defaults_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSER_CACHE", str(tmp_path))
    settings = mser.TrainSettings(head="linear", dataset="meld")
    assert settings.cache == str(tmp_path)
    assert settings.encoders == {"speech": None, "text": None}
    given: Any = mser.FeatureCache(tmp_path / "other")
    assert mser.TrainSettings("linear", "meld", given).cache == str(tmp_path / "other")
    root: Any = str(tmp_path)
    extracted = mser.ExtractSettings(dataset="meld", root=root)
    assert extracted.cache == str(tmp_path)
    assert set(extracted.encoders) == {"speech", "text"}


def test_importing_mser_imports_nothing_slow() -> None:
    code = "import sys, mser; print(sorted({'torch', 'numpy', 'zarr'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
