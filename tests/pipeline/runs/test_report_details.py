"""What the report shows beyond the scores: groups, layers, mistakes, and the files of --tables."""

import base64
import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.patches import Rectangle
from safetensors.numpy import load_file

from mser.pipeline.evaluation.calibration import calibration
from mser.pipeline.feature_cache import FeatureCache
from mser.pipeline.figures.training import weights_figure
from mser.pipeline.runs.report import report
from mser.pipeline.runs.report_details import layer_weights
from mser.pipeline.runs.report_files import write_files
from mser.pipeline.runs.report_rows import read_rows
from mser.pipeline.train import train_head
from mser.pipeline.train.run_folder import RunFolder
from mser.tests.conftest import Call
from mser.tests.pipeline.runs.test_report import Page, percent
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import made, made_cache, make_utterance

SPEAKERS = ("ann", "<i>bob</i>", "cy")
HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, a clip, and two runs in it, ``one`` and ``two``. Do not change them."""
    root = tmp_path_factory.mktemp("details")
    corpus = [
        make_utterance(
            f"s{n % 2}-{n}",
            session=f"s{n % 2}",
            speaker=f"{SPEAKERS[n % 3]}{n % 2}",
            text=f"line {n}" if n % 5 else HOSTILE,
            audio=root / "clip.wav",
        )
        for n in range(40)
    ]
    (root / "clip.wav").write_bytes(b"RIFF of a test")
    wrong = {utterance.id: "happy" for utterance in corpus[::4]}
    cache = made_cache(root / "cache", corpus, protocol="leave-one-session-out", shown=wrong)
    train_head(made(cache, root / "one", "learning_rate=0.05", layer="mix", seeds=(0, 1)))
    train_head(made(cache, root / "two", layer="mix"))
    return root


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_scores_of_each_speaker_and_session_are_counted(place: Path, tmp_path: Path) -> None:
    page = Page(report(place / "one", tmp_path / "page.html").path)
    table = page.rows("Scores by group")
    for column in ("speaker", "session"):
        groups: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows_of(place / "one"):
            groups[row[column]].append(row)
        for value, rows in groups.items():
            right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
            recalls = []
            for label in {row["label"] for row in rows}:
                of_label = [row for row in rows if row["label"] == label]
                recalls.append(sum(row["predicted"] == label for row in of_label) / len(of_label))
            assert table[value][0] == str(len({row["id"] for row in rows}))
            assert table[value][1] == percent(right)
            assert table[value][2] == percent(sum(recalls) / len(recalls))


def test_the_surest_mistakes_have_text_and_clip(place: Path, tmp_path: Path) -> None:
    page = Page(report(place / "one", tmp_path / "page.html", audio=True).path)
    classes = [name[2:] for name in rows_of(place / "one")[0] if name.startswith("p_")]
    of_id: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows_of(place / "one"):
        of_id[row["id"]].append(row)
    means = {
        id: {name: np.mean([float(row[f"p_{name}"]) for row in rows]) for name in classes}
        for id, rows in of_id.items()
    }
    wrong = {
        id: max(mean.values())
        for id, mean in means.items()
        if max(mean, key=lambda name: mean[name]) != of_id[id][0]["label"]
    }
    expected = sorted(wrong, key=lambda id: -wrong[id])[:12]
    shown = page.rows("Surest mistakes")
    assert [name for name in shown if name != "utterance"] == expected
    assert len(expected) > 3
    for id in expected:
        text, label, _, probability, *_ = shown[id]
        number = int(id.partition("-")[2])
        assert text == (f"line {number}" if number % 5 else HOSTILE)
        assert label == of_id[id][0]["label"]
        assert probability == percent(float(wrong[id]))
    clips = [a["src"] for tag, a in page.tags if tag == "audio"]
    data = base64.b64encode(b"RIFF of a test").decode()
    assert clips == [clip for clip in clips if str(clip).endswith(f";base64,{data}")]
    assert len(clips) == len(expected)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "audio" not in {tag for tag, _ in Page(report(place / "one", tmp_path / "b").path).tags}


def test_an_utterance_whose_votes_are_a_tie_leaves_the_others_in_the_report(
    tmp_path: Path,
) -> None:
    header = "id,label,predicted,p_a,p_b,votes_a,votes_b,fold,seed,speaker,session,dialogue\n"
    lines = ["u,a,a,0.9,0.1,1,0", "tie,,a,0.8,0.2,0.5,0.5", "w,b,a,0.7,0.3,0,1"]
    text = header + "".join(f"{line},f,0,s,,\n" for line in lines)
    (tmp_path / "predictions.csv").write_text(text)
    rows = read_rows(tmp_path, ("a", "b"))
    assert [(row.id, row.label, row.predicted) for row in rows] == [
        ("u", "a", "a"),
        ("w", "b", "a"),
    ]


def test_the_weights_of_the_layers_are_those_of_the_checkpoints(
    place: Path, tmp_path: Path
) -> None:
    folder = RunFolder(place / "one")
    rows = layer_weights(folder.path, folder.config(), folder.read_json("metrics.json"))["speech"]
    weights = []
    for path in (place / "one" / "checkpoints").iterdir():
        raw = load_file(path)["mixes.mixes.speech.weights"].astype(float)
        weights.append(np.exp(raw) / np.exp(raw).sum())
    (axes,) = weights_figure("speech", rows).axes
    for layer, column in enumerate(np.stack(weights).T):
        assert rows[layer]["layer"] == str(layer)
        bar, line = axes.patches[layer], axes.collections[0].get_paths()[layer]
        assert isinstance(bar, Rectangle)
        assert bar.get_height() == pytest.approx(100 * column.mean())
        ends = [100 * column.min(), 100 * column.max()]
        assert np.asarray(line.vertices)[:, 1].tolist() == pytest.approx(ends)
    page = Page(report(place / "one", tmp_path / "page.html").path)
    assert 'aria-label="speech weights by layer"' in page.source


def test_the_calibration_is_of_all_test_predictions(place: Path, tmp_path: Path) -> None:
    page = Page(report(place / "one", tmp_path / "page.html").path)
    rows = rows_of(place / "one")
    sure = [float(row[f"p_{row['predicted']}"]) for row in rows]
    right = [row["label"] == row["predicted"] for row in rows]
    ece = calibration(sure, right).ece
    assert f"Expected calibration error (ECE): {percent(ece)} points" in page.text


def test_the_difference_of_two_confusions_and_the_ranked_charts(
    place: Path, tmp_path: Path
) -> None:
    page = Page(report([place / "two", place / "one"], tmp_path / "page.html").path)
    table = page.rows("Differences of the confusion matrices")
    shares = []
    for name in ("two", "one"):
        metrics = json.loads((place / name / "metrics.json").read_text())
        counts = np.array(metrics["pooled"]["confusion"], dtype=float)
        shares.append(counts / counts.sum(axis=1, keepdims=True))
    for name, row in zip(metrics["classes"], shares[1] - shares[0], strict=True):
        assert table[name] == [f"{100 * value:+.1f}" for value in row]
    links = [a.get("href") for tag, a in page.tags if tag == "a"]
    ids = {a["id"] for _, a in page.tags if a.get("id")}
    assert {"#group1", "#run1", "#run2"} <= set(links)
    assert {str(link)[1:] for link in links} <= ids
    best = re.findall(r">(one|two)</text>", page.source)[:2]
    assert best == ["one", "two"]  # the better first


def test_a_column_of_the_corpus_is_scored(call: Call, place: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(place / "cache", tmp_path / "cache")
    features = FeatureCache(copied)
    entry = features.open("made-up", modality="speech")
    table = features.read_manifest("made-up", entry.manifest)
    values = ["acted" if str(id).startswith("s0") else HOSTILE for id in table["id"].to_pylist()]
    table = table.append_column("scenario", pa.array(values))
    features.existing(entry.spec).publish(features.write_manifest("made-up", table))
    run = shutil.copytree(place / "one", tmp_path / "run")
    config = (run / "config.toml").read_text().replace(str(place / "cache"), str(copied))
    (run / "config.toml").write_text(config)
    code, _, err = call("report", run, "--by", "scenario")
    assert (code, err) == (0, "")
    page = Page(Path("report.html"))
    assert page.rows("Scores by group")[HOSTILE][0] == "20"
    assert "script" not in {tag for tag, _ in page.tags}
    code, _, err = call("report", run, "--by", "scenari")
    assert code == 2
    assert is_one_sentence(err), err
    assert "did you mean 'scenario'" in err
    shutil.rmtree(copied)
    assert call("report", run)[0] == 0
    assert "The cache of the run is not here" in Path("report.html").read_text()
    code, _, err = call("report", run, "--by", "scenario")
    assert code == 2
    assert is_one_sentence(err), err


def test_each_table_is_a_file_and_each_figure_too(call: Call, place: Path, tmp_path: Path) -> None:
    hostile = shutil.copytree(place / "one", tmp_path / "=1+1 & 50% of_{x}")
    runs = [hostile, place / "two"]
    code, out, err = call("report", *runs, "--tables", "tables")
    assert code == 0, err
    page = Page(Path("report.html"))
    names = {path.name for path in Path("tables").iterdir()}
    assert f"tables: {len(names)} files" in out
    count = page.source.count("<table")
    assert len([n for n in names if n.endswith(".csv")]) == count > 10
    assert {n[:-4] for n in names if n.endswith(".csv")} == {
        n[:-4] for n in names if n.endswith(".tex")
    }
    pictures = [path for path in Path("tables").iterdir() if path.suffix == ".svg"]
    assert len(pictures) == page.source.count("<svg")
    for path in pictures:
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        picture = ElementTree.parse(path).getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
        assert picture.get("viewBox")

    with Path("tables/report.csv").open(encoding="utf-8", newline="") as file:
        overview = list(csv.reader(file))
    assert overview[1][0] == "'=1+1 & 50% of_{x}"  # no spreadsheet computes the name of a run
    latex = Path("tables/report.tex").read_text()
    assert r"=1+1 \& 50\% of\_\{x\}" in latex
    for path in Path("tables").glob("*.tex"):
        widths = {
            len(re.findall(r"(?<!\\)&", line))
            for line in path.read_text().splitlines()
            if line.endswith(r"\\")
        }
        assert len(widths) == 1, path
    scores = next(path for path in Path("tables").glob("*two-scores.csv"))
    with scores.open(encoding="utf-8", newline="") as file:
        cells: dict[str, Any] = {row[0]: row[1:] for row in csv.reader(file)}
    metrics = json.loads((place / "two" / "metrics.json").read_text())
    low, high = metrics["aggregate"]["wa"]["pooled_ci95"]
    assert cells["95 % interval"][0] == f"{percent(low)} … {percent(high)}"


def test_signs_that_latex_prints_as_others_are_mathematics(tmp_path: Path) -> None:
    row = "<tr><td>two − one</td><td>p &lt; 0.001</td><td>a → b &gt; c</td></tr>"
    write_files(f"<h2>t</h2><table><tr><th>x</th></tr>{row}</table>", [], tmp_path)
    expected = r"two $-$ one & p $<$ 0.001 & a $\rightarrow$ b $>$ c"
    assert expected in (tmp_path / "t.tex").read_text()
