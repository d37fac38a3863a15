"""``mser probe``: a row for each cached layer, its scores, and the picture."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import made_both, official, read_json

ROWS = [
    *(("speech", layer) for layer in (0, 1, 2, "concat")),
    *(("text", layer) for layer in (0, 1, "concat")),
    ("speech+text", "concat"),
]
FAST = ("--set", "l2=0.1")  # one strength instead of all
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech shows whether a class is one of the last two, text all classes. Do not change it."""
    root = tmp_path_factory.mktemp("probe") / "cache"
    return made_both(root, official(60, 20, 20), shown={"speech": (0, 0, 1, 1)})


def test_each_layer_has_its_row_run_and_scores(call: Call, cache: Path, tmp_path: Path) -> None:
    command = ("probe", "--dataset", "made-up", "--cache", cache, "--out", "probed", *FAST)
    code, out, err = call(*command, "--metric", "ua", "--json")
    assert code == 0, err
    table = json.loads(out)
    assert [(row["modality"], row["layer"]) for row in table["layers"]] == ROWS
    for row in table["layers"]:
        metrics = read_json(tmp_path / row["run"] / "metrics.json")
        for metric, scores in row["scores"].items():
            aggregate = metrics["aggregate"][metric]
            assert scores["pooled"] == aggregate["pooled"]
            assert [scores["ci95_low"], scores["ci95_high"]] == aggregate["pooled_ci95"]
            assert scores["validation"] == metrics["folds"][0]["validation"][metric]
    by_row = {
        (row["modality"], row["layer"]): row["scores"]["ua"]["pooled"] for row in table["layers"]
    }
    assert all(by_row["text", layer] > 0.9 for layer in (0, 1, "concat"))
    assert all(0.3 < by_row["speech", layer] < 0.7 for layer in (0, 1, 2, "concat"))
    with (tmp_path / "probed" / "probe.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(ROWS) * 4
    assert float(lines[1]["pooled"]) == by_row["speech", 0]

    runs = {path: path.stat().st_mtime_ns for path in tmp_path.glob("probed/runs/*/metrics.json")}
    code, text, _ = call(*command, "--metric", "ua")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs  # nothing is trained again
    for modality, layer in ROWS:
        assert f"  {modality} {layer} " in text


def test_the_picture_names_each_layer_and_modality(call: Call, cache: Path, tmp_path: Path) -> None:
    code, _, err = call("probe", "--dataset", "made-up", "--cache", cache, *FAST)
    assert code == 0, err
    picture = ElementTree.parse(tmp_path / "probes" / "made-up" / "probe.svg").getroot()
    assert (tmp_path / "probes" / "made-up" / "probe.pdf").read_bytes().startswith(b"%PDF-")
    texts = [element.text for element in picture.findall(f".//{SVG}text")]
    for text in ("speech", "text", "speech+text, all layers", "weighted F1, %", "0", "1", "2"):
        assert text in texts


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--metric", "f1"), "unknown metric 'f1'"),
        (("--pooling", "max"), "unknown pooling 'max'"),
        (("--dataset", "other"), "unknown dataset"),
    ],
)
def test_a_wrong_probe_is_one_sentence(
    call: Call, cache: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    code, out, err = call("probe", "--dataset", "made-up", "--cache", cache, *options)
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert says in err
    assert not (tmp_path / "probes").exists()
