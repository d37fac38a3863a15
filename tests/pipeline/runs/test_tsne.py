"""The t-SNE figure of a run: what is embedded, what is drawn, and what is refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from mser.cache import FeatureCache
from mser.heads import build_head
from mser.pipeline.runs import tsne
from mser.pipeline.train import Run, train_head
from mser.tests.conftest import Call
from mser.tests.support.small_heads import SMALL
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import CLASSES, made_both, official, read_json, tiny

STAGES, MODALITIES = ("before alignment", "after alignment"), ("speech", "text")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of ``mgcma`` with two seeds. Do not change it."""
    root = tmp_path_factory.mktemp("tsne")
    cache = made_both(root / "cache", official(8, 4, 8))
    return train_head(tiny("mgcma", cache, root / "run", "epochs=1", seeds=(0, 1)))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def vectors(run: Run, seed: int) -> dict[tuple[str, str, str], NDArray[np.float32]]:
    """(stage, id, modality) → the vector, each utterance alone, from the parts of the head."""
    cache = FeatureCache(run.path.parent / "cache")
    entries = {m: cache.open("made-up", modality=m) for m in MODALITIES}
    dims, layers = {"speech": 6, "text": 5}, {"speech": 3, "text": 2}
    head = build_head("mgcma", dims, 4, layers, **SMALL["mgcma"]).eval()
    head.load_state_dict(load_file(run.path / "checkpoints" / f"official-seed{seed}.safetensors"))
    found = {}
    for id in read_json(run.path / "folds.json")["folds"][0]["test"]:
        x = {m: torch.tensor(np.array(entry[id])).unsqueeze(0) for m, entry in entries.items()}
        x = {m: head.standardised(m, states) for m, states in x.items()}
        tokens: Any = head.projections(x)  # type: ignore[operator]
        masks = {m: torch.ones(z.shape[:2], dtype=torch.bool) for m, z in tokens.items()}
        passed = tokens
        for align in head.alignments.values():  # type: ignore[operator]
            passed, _ = align(passed, masks)
        for stage, sequences in zip(STAGES, (tokens, passed), strict=True):
            for m in MODALITIES:
                found[stage, id, m] = sequences[m][0].mean(dim=0).detach().numpy()
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_vectors_of_the_test_part_are_embedded(
    call: Call, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(tsne, "embed", lambda vectors: vectors[:, :2])  # the first two numbers
    out = tmp_path / "folder" / "figure.svg"
    code, said, err = call("figure", "tsne", run.path, "--out", out, "--seed", seed, "--json")
    assert code == 0, err
    assert json.loads(said) == {
        "figure": str(out),
        "table": str(out.with_suffix(".csv")),
        "fold": "official",
        "seed": seed,
        "points": 16,
    }
    label_of = {utterance.id: utterance.label for utterance in official(8, 4, 8)}
    rows = table(out.with_suffix(".csv"))
    expected = vectors(run, seed)
    assert {(row["stage"], row["id"], row["modality"]) for row in rows} == set(expected)
    assert len(rows) == len(expected) == 2 * 8 * 2
    for row in rows:
        vector = expected[row["stage"], row["id"], row["modality"]]
        assert [float(row["x"]), float(row["y"])] == pytest.approx(vector[:2], abs=1e-5)
        assert row["label"] == label_of[row["id"]]


def test_the_same_run_gives_the_same_figure(call: Call, run: Run, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.svg"
        code, said, err = call("figure", "tsne", run.path, "--out", out, "--fold", "official")
        assert code == 0, err
        assert f"{out}: 16 vectors of fold official, seed 0" in said
        files.append((out.read_bytes(), out.with_suffix(".csv").read_bytes()))
    assert files[0] == files[1]

    image = ElementTree.fromstring(files[0][0])
    texts = [text.text for text in image.findall(f".//{SVG}text")]
    assert [text for text in texts if text in (*CLASSES, *MODALITIES)] == [*CLASSES, *MODALITIES]
    assert set(STAGES) <= set(texts)
    code, _, err = call("figure", "tsne", run.path, "--out", tmp_path / "one.pdf")
    assert code == 0, err
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "tsne.png"], "'tsne.png' is not the name of an SVG or PDF file: give a"),
        (["--fold", "offical"], "unknown fold of this run 'offical': did you mean 'official'?"),
        (["--seed", "7"], "unknown seed of this run '7' (known: 0, 1)"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    call: Call, run: Run, tmp_path: Path, options: list[str], says: str
) -> None:
    code, out, err = call("figure", "tsne", run.path, *options)
    assert (code, out) == (2, "")
    assert is_one_sentence(err)
    assert says in err
    assert not list(tmp_path.iterdir())


def test_a_head_without_such_vectors_is_one_sentence(call: Call, run: Run, tmp_path: Path) -> None:
    linear = train_head(tiny("linear", run.path.parent / "cache", tmp_path / "run", "epochs=1"))
    code, out, err = call("figure", "tsne", linear.path)
    assert (code, out) == (2, "")
    assert is_one_sentence(err)
    assert "the head 'linear'" in err
    assert "give a run of distribution, instance, mgcma, token" in err


def test_a_folder_that_is_not_a_finished_run_and_a_small_test_part_are_refused(
    call: Call, run: Run, tmp_path: Path
) -> None:
    assert "is not the folder of a run" in call("figure", "tsne", tmp_path)[2]
    small = shutil.copytree(run.path, tmp_path / "small")
    folds = read_json(small / "folds.json")
    folds["folds"][0]["test"] = folds["folds"][0]["test"][:1]
    (small / "folds.json").write_text(json.dumps(folds))
    code, _, err = call("figure", "tsne", small)
    assert code == 1
    assert "has only 2 vectors, and t-SNE needs 4" in err
    (small / "metrics.json").unlink()
    assert "give the folder of a finished run" in call("figure", "tsne", small)[2]
