"""Whole trainings whose target is not one class: what is scored, written and read again."""

import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr

import mser as package
from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.runs.report import report
from mser.pipeline.train import Run, TrainSettings, train_head
from mser.tests.conftest import Call
from mser.tests.support.train_runs import CLASSES, made_both, official, rows, tiny

LEVEL = {"angry": 1.0, "happy": 5.0, "neutral": 3.0, "sad": 2.0}


def rated(utterances: list[Utterance]) -> list[Utterance]:
    """Utterances whose valence and votes follow the label, which the features show."""
    noise = np.random.default_rng(0)
    result = []
    for u in utterances:
        votes = {name: float(n) for name, n in zip(CLASSES, noise.multinomial(2, [0.25] * 4))}  # noqa: B905
        votes[str(u.label)] += 5
        valence = 100 + 10 * LEVEL[str(u.label)] + float(noise.normal())
        result.append(replace(u, attributes={"valence": valence, "arousal": -valence}, votes=votes))
    return result


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = rated(official(train=40, validation=16, test=16))
    corpus[0] = replace(corpus[0], attributes={"arousal": 1.0}, votes={})
    return made_both(tmp_path_factory.mktemp("rated") / "cache", corpus)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Run]:
    out, solved = tmp_path_factory.mktemp("runs"), ("optimizer=auto", "l2=0.1")
    wanted = {
        "linear": tiny("linear", cache, out / "linear", *solved, target="valence,arousal"),
        "query": tiny("query", cache, out / "query", "epochs=8", target="valence,arousal"),
        "votes": tiny("linear", cache, out / "votes", "optimizer=auto", "l2=0.1", target="votes"),
        "labels": tiny(
            "linear", cache, out / "labels", "optimizer=auto", "l2=0.1", target="labels"
        ),
        "both": tiny("linear", cache, out / "both", target=("valence", "emotion")),
    }
    return {name: train_head(settings) for name, settings in wanted.items()}


def numbers(run: Run, column: str) -> np.ndarray:
    return np.array([float(row[column]) for row in rows(run)])


@pytest.mark.parametrize("name", ["linear", "query"])
def test_a_head_regresses_attributes_on_their_own_scale(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    x, y = numbers(run, "predicted_valence"), numbers(run, "true_valence")
    assert (y > 100).all()
    assert ((x - y) ** 2).mean() < (y.var() if name == "linear" else 2 * y.var())
    scored = run.metrics["aggregate"]
    assert scored["pearson_valence"]["mean"] == pytest.approx(pearsonr(x, y).statistic)
    assert scored["mse_valence"]["mean"] == pytest.approx(((x - y) ** 2).mean())
    assert scored["ccc"]["mean"] > 0.3 > run.metrics["chance"]["ccc"]["mean"] == 0
    assert run.metrics["target"] == ["valence", "arousal"]
    assert run.metrics["classes"] == []
    assert "best ccc on the validation part" in run.metrics["selected_by"]
    assert run.metrics["excluded"] == {"it has no valence": 1}
    assert "CCC valence" in str(run)


def test_the_chance_of_attributes_is_the_mean_of_the_training_part(runs: dict[str, Run]) -> None:
    run = runs["linear"]
    corpus = rated(official(train=40, validation=16, test=16))
    mean = np.mean([u.attributes["valence"] for u in corpus[1:40]])
    expected = ((numbers(run, "true_valence") - mean) ** 2).mean()
    assert run.metrics["chance"]["mse_valence"]["mean"] == pytest.approx(expected)


def test_votes_keep_the_scores_of_classes(runs: dict[str, Run]) -> None:
    run = runs["votes"]
    of_row = rows(run)
    assert np.mean([row["label"] == row["predicted"] for row in of_row]) == pytest.approx(
        run.metrics["aggregate"]["wa"]["mean"]
    )
    assert sum(float(of_row[0][f"votes_{name}"]) for name in CLASSES) == pytest.approx(1)
    assert run.metrics["aggregate"]["kl"]["mean"] < run.metrics["chance"]["kl"]["mean"]
    assert run.metrics["excluded"] == {"it has no votes": 1}


def test_several_labels_are_predicted_at_once(runs: dict[str, Run]) -> None:
    run = runs["labels"]
    chosen = [[float(row[f"p_{name}"]) >= 0.5 for name in CLASSES] for row in rows(run)]
    known = [[row[f"has_{name}"] == "1" for name in CLASSES] for row in rows(run)]
    pairs = list(zip(np.array(chosen).T, np.array(known).T, strict=True))
    each = [2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in pairs]
    assert run.metrics["aggregate"]["macro_f1"]["mean"] == pytest.approx(np.mean(each))
    assert run.metrics["aggregate"]["map"]["mean"] > run.metrics["chance"]["map"]["mean"]
    assert set(run.metrics["pooled"]["per_class"]) == set(CLASSES)


def test_a_class_and_an_attribute_are_predicted_together(runs: dict[str, Run]) -> None:
    run = runs["both"]
    assert run.metrics["target"] == ["emotion", "valence"]
    found = run.metrics["aggregate"]
    assert {"wa", "ccc", "mse"} <= set(found)
    labels = [(row["label"], row["predicted"]) for row in rows(run)]
    assert found["wa"]["mean"] == pytest.approx(np.mean([a == b for a, b in labels]))
    first = json.loads((run.path / "log.jsonl").read_text().splitlines()[0])
    assert {"cross_entropy", "ccc"} <= set(first["train"])


@pytest.mark.parametrize("name", ["linear", "query", "votes", "labels", "both"])
def test_a_run_is_evaluated_again_from_its_files(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    facts = evaluate(run.path, device="cpu").facts
    for metric, scored in run.metrics["aggregate"].items():
        assert facts["aggregate"][metric]["mean"] == pytest.approx(scored["mean"], abs=1e-6)
        assert facts["as_trained"][metric]["mean"] == pytest.approx(scored["mean"], abs=1e-9)
    loaded = package.load_run(run.path)
    assert loaded.predictions.num_rows == 16
    if name != "both":
        with pytest.raises(UsageError, match="has no confusion matrix"):
            _ = package.load_run(runs["linear"].path).confusion
    assert tomllib.loads((run.path / "config.toml").read_text())["target"] == run.metrics["target"]


@pytest.mark.parametrize(
    ("target", "column", "least", "most"),
    [("valence,arousal", "predicted_valence", 100.0, 170.0), ("labels", "p_sad", 0.0, 1.0)],
)
def test_a_second_test_part_has_the_numbers_of_a_training_of_its_own(
    tmp_path: Path, target: str, column: str, least: float, most: float
) -> None:
    corpus = rated(official(train=24, validation=8, test=16))
    tests = [u for u in corpus if u.split == "test"]
    of_part = {u.id: f"test{1 + n % 2}" for n, u in enumerate(tests)}
    corpus = [replace(u, split=of_part.get(u.id, u.split)) for u in corpus]
    cache = made_both(tmp_path / "cache", corpus)
    settings = tiny("query", cache, tmp_path / "both", "epochs=2", target=target)
    both = train_head(settings)
    alone = train_head(replace(settings, out=tmp_path / "alone", folds=("test2",)))
    second = [row for row in rows(both) if row["fold"] == "test2"]
    assert len(second) == 8
    assert second == rows(alone)
    assert all(least < float(row[column]) < most for row in second)


def test_runs_on_attributes_are_compared_and_reported(runs: dict[str, Run], tmp_path: Path) -> None:
    found = package.compare(runs["linear"], runs["query"], resamples=200)
    assert found.mcnemar is None
    linear, query = (
        runs[name].metrics["aggregate"]["ccc"]["pooled"] for name in ("linear", "query")
    )
    assert found.metrics["ccc"].difference == pytest.approx(query - linear)
    assert "CCC arousal" in str(found)
    assert "McNemar" not in str(found)
    for metric in ("ccc", "mse_valence"):
        alone = package.compare(runs["linear"], runs["query"], metric, resamples=200)
        assert alone.metrics == {metric: found.metrics[metric]}
    with pytest.raises(UsageError, match=r"predicts valence,arousal and .* votes: compare runs"):
        package.compare(runs["linear"], runs["votes"])
    with pytest.raises(UsageError, match=r"unknown metric of .* 'wa'"):
        package.compare(runs["linear"], runs["query"], "wa")
    page = report([*runs.values()], tmp_path / "report.html").path.read_text()
    assert "CCC valence" in page
    assert "always the mean of each attribute of the training part" in page
    assert "nan" not in page.lower().replace("finance", "")


@pytest.fixture
def settings(cache: Path, tmp_path: Path) -> Any:
    def given(*more: str, head: str = "linear", **changes: Any) -> TrainSettings:
        return tiny(head, cache, tmp_path / "run", *more, **changes)

    return given


def test_the_configuration_of_one_class_is_as_before(settings: Any) -> None:
    config = settings().as_config()
    assert "target" not in config
    assert "loss" not in config
    assert config["monitor"] == "weighted_f1"


@pytest.mark.parametrize(
    ("more", "changes", "match"),
    [
        ((), {"target": "valence,valence"}, "give one or more different targets"),
        ((), {"target": "emotion,votes"}, "emotion and votes are both over the classes"),
        ((), {"target": "dominance"}, "no utterance of made-up in the cache has a dominance"),
        ((), {"target": "valance"}, "unknown target of made-up 'valance': did you mean 'valence'"),
        (("loss=bce",), {"target": "valence"}, "unknown loss of valence 'bce'"),
        (("loss=ccc", "optimizer=auto"), {"target": "valence"}, "solved by the squared error"),
        (("class_weights=balanced",), {"target": "valence"}, "needs the target emotion or votes"),
        (("monitor=wa",), {"target": "valence"}, "unknown metric of valence 'wa'"),
        (("monitor=ccc",), {}, "unknown metric of emotion 'ccc'"),
    ],
)
def test_a_target_that_does_not_fit_is_one_sentence(
    settings: Any, more: tuple[str, ...], changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        train_head(settings(*more, **changes))


def test_supcon_needs_a_class(settings: Any) -> None:
    with pytest.raises(UsageError, match="set supervised=false"):
        train_head(settings("head.supervised=true", head="hbf", target="valence"))


def test_classes_restrict_attributes_only_if_they_are_given(tmp_path: Path) -> None:
    corpus = rated(official(train=24, validation=8, test=8))
    corpus = [replace(u, label=None) if u.label == "sad" else u for u in corpus]
    sets = {"2": {"angry": "a", "happy": "b"}}
    cache = made_both(tmp_path / "cache", corpus, class_sets=sets)
    for classes, kept in ((None, None), ("2", ("angry", "happy"))):
        settings = tiny("linear", cache, tmp_path / f"run{classes}", target="arousal")
        run = train_head(replace(settings, classes=classes, epochs=1))
        tested = [u for u in corpus if u.split == "test" and (kept is None or u.label in kept)]
        assert {row["id"] for row in rows(run)} == {u.id for u in tested}


def test_a_column_of_the_corpus_may_be_the_label(tmp_path: Path) -> None:
    table = tmp_path / "corpus.csv"
    corpus = package.pipeline.corpora.manifest_file
    lines = [["id", "label", "mood"], ["a", "x", "good"], ["b", "y", ""], ["c", "y", "bad"]]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    chosen = corpus.read_manifest(table, "own").in_classes("mood")
    assert chosen.classes == ("bad", "good")
    assert [u.label for u in chosen.utterances] == ["good", None, "bad"]


def test_the_command_line_takes_targets(call: Call, cache: Path, tmp_path: Path) -> None:
    typed = ["train-head", "--head", "linear", "--dataset", "made-up", "--cache", cache]
    code, out, _ = call(*typed, "--target", "arousal", "--set", "l2=0.1", "--out", tmp_path / "run")
    assert code == 0
    assert "72 test utterances" not in out
    assert "16 test utterances, arousal" in out
    code, out, _ = call("list", "targets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:2] == ["emotion", "valence"]
