"""A run can be checked from its folder, and repeated bit by bit."""

import csv
import random
import shutil
import tomllib
from dataclasses import replace
from inspect import signature
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from mser.cache import FeatureCache
from mser.heads import HEADS
from mser.pipeline.errors import UsageError
from mser.pipeline.train import Run, train_head
from mser.pipeline.train.examples import find_examples
from mser.pipeline.train.jobs import trainer_of
from mser.pipeline.train.run_folder import named_by_content
from mser.tests.support.train_runs import (
    BOTH,
    CLASSES,
    CONTENT,
    log,
    made,
    made_cache,
    make_utterance,
    official,
    read_json,
    rows,
    small,
)

# Content -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["linear", "hbf"])
def run(
    request: pytest.FixtureRequest, filled_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A finished run with two seeds. Do not change its folder."""
    out = tmp_path_factory.mktemp("runs") / request.param
    return train_head(small(request.param, filled_cache, out, seeds=(0, 3)))


def test_a_run_folder_holds_the_documented_files_and_no_others(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == CONTENT
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {
        f"ses0{n}-seed{seed}.safetensors" for n in (1, 2, 3, 4) for seed in (0, 3)
    }


def test_metrics_are_recomputed_exactly_from_the_predictions(run: Run) -> None:
    direct: dict[str, Any] = {
        "wa": accuracy_score,
        "ua": balanced_accuracy_score,
        "weighted_f1": lambda a, b: f1_score(a, b, average="weighted", zero_division=0),
        "macro_f1": lambda a, b: f1_score(a, b, average="macro", zero_division=0),
    }

    def score(some: list[dict[str, str]], metric: str) -> float:
        return float(direct[metric]([r["label"] for r in some], [r["predicted"] for r in some]))

    table = rows(run)
    metrics = read_json(run.path / "metrics.json")
    assert metrics == run.metrics
    assert [(fold["fold"], fold["seed"]) for fold in metrics["folds"]] == [
        (f"ses0{n}", seed) for n in (1, 2, 3, 4) for seed in (0, 3)
    ]
    for metric in direct:
        each = []
        for fold in metrics["folds"]:
            part = [r for r in table if (r["fold"], r["seed"]) == (fold["fold"], str(fold["seed"]))]
            assert len(part) == fold["utterances"]["test"] == 24
            assert fold[metric] == score(part, metric)
            each.append(fold[metric])
        pooled = [score([r for r in table if r["seed"] == seed], metric) for seed in ("0", "3")]
        found = metrics["aggregate"][metric]
        assert found["mean"] == fmean(each)
        assert found["std"] == stdev(each)
        assert found["pooled"] == fmean(pooled)


def test_the_seeds_together_are_scored_by_the_mean_of_their_probabilities(run: Run) -> None:
    labels: dict[str, str] = {}
    folds: dict[str, list[str]] = {}
    sums: dict[str, list[float]] = {}
    for row in rows(run):
        labels[row["id"]] = row["label"]
        folds.setdefault(row["fold"], []).append(row["id"])
        of_seed = [float(row[f"p_{name}"]) for name in CLASSES]
        sums[row["id"]] = [
            a + b for a, b in zip(sums.get(row["id"], [0.0] * 4), of_seed, strict=True)
        ]
    best = {id: CLASSES[of.index(max(of))] for id, of in sums.items()}
    together = run.metrics["seeds_together"]
    pooled = accuracy_score([labels[id] for id in best], [*best.values()])
    assert together["wa"]["pooled"] == pooled
    by_fold = [
        accuracy_score([labels[i] for i in ids], [best[i] for i in ids]) for ids in folds.values()
    ]
    assert together["wa"]["mean"] == pytest.approx(fmean(by_fold))
    low, high = together["wa"]["pooled_ci95"]
    assert low <= pooled <= high
    assert "seeds together" in str(run)


def test_one_seed_alone_has_no_score_of_seeds_together(filled_cache: Path, tmp_path: Path) -> None:
    run = train_head(small("linear", filled_cache, tmp_path))
    assert "seeds_together" not in run.metrics
    assert "seeds together" not in str(run)


def test_the_prediction_is_the_class_with_the_highest_probability(run: Run) -> None:
    for row in rows(run):
        probabilities = {name: float(row[f"p_{name}"]) for name in CLASSES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert all(0 <= value <= 1 for value in probabilities.values())
        assert row["predicted"] == max(probabilities, key=lambda name: probabilities[name])


def test_every_utterance_is_tested_once_with_its_own_label(run: Run, corpus_root: Path) -> None:
    with (corpus_root / "utterances.csv").open(encoding="utf-8", newline="") as file:
        corpus = {row["id"]: row for row in csv.DictReader(file)}
    for seed in ("0", "3"):
        tested = [row for row in rows(run) if row["seed"] == seed]
        assert sorted(row["id"] for row in tested) == sorted(corpus)
        for row in tested:
            assert row["label"] == corpus[row["id"]]["label"]
            assert row["fold"] == corpus[row["id"]]["session"]
    assert run.metrics["test_utterances"] == len(corpus)


def test_folds_list_the_utterances_of_each_part(run: Run) -> None:
    content = read_json(run.path / "folds.json")
    assert content["excluded"] == {}
    for fold in content["folds"]:
        parts = [fold[part] for part in ("train", "validation", "test")]
        everything = [id for part in parts for id in part]
        assert len(everything) == len(set(everything)) == 96
        tested = {row["id"] for row in rows(run) if row["fold"] == fold["fold"]}
        assert set(fold["test"]) == tested
        for scored in run.metrics["folds"]:
            if scored["fold"] == fold["fold"]:
                assert list(scored["utterances"].values()) == [len(part) for part in parts]


def test_the_configuration_and_the_environment(run: Run, filled_cache: Path) -> None:
    config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
    head = run.metrics["head"]
    assert config["head"] == head
    assert config["dataset"] == "synthetic"
    assert config["cache"] == str(filled_cache)
    assert config["protocol"] == run.metrics["protocol"] == "leave-one-session-out"
    assert config["seeds"] == [0, 3]
    assert config["epochs"] == (3 if head == "linear" else 1)
    assert config["batch_size"] == 32
    assert config["learning_rate"] == 1e-3
    assert config["head_options"] == (
        {} if head == "linear" else {"width": 16, "projection": 8, "n_bottlenecks": 2}
    )
    for modality, name in (("speech", "small-wav2vec2"), ("text", "small-bert")):
        key = FeatureCache(filled_cache).open("synthetic", modality=modality).spec.key
        assert config["encoders"][modality] == {"name": name, "key": key}
    environment = read_json(run.path / "environment.json")
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or (
        environment["packages"]["torch"] == torch.__version__
    )
    assert environment["device"] == "cpu"


def test_the_log_has_a_line_for_each_epoch(run: Run) -> None:
    lines = log(run)
    assert len(lines) == 8 * (3 if run.metrics["head"] == "linear" else 1)
    for fold in run.metrics["folds"]:
        of_fold = [x for x in lines if (x["fold"], x["seed"]) == (fold["fold"], fold["seed"])]
        assert [x["epoch"] for x in of_fold] == list(range(1, len(of_fold) + 1))
        highest = max(x["validation"]["weighted_f1"] for x in of_fold)
        best = of_fold[fold["best_epoch"] - 1]
        assert best["validation"]["weighted_f1"] == highest
        assert fold["validation"] == best["validation"]
        assert best["validation"]["loss"] == min(
            x["validation"]["loss"] for x in of_fold if x["validation"]["weighted_f1"] == highest
        )
        assert all(np.isfinite(value) for x in of_fold for value in x["train"].values())


def test_a_checkpoint_gives_the_predictions_again(run: Run, filled_cache: Path) -> None:
    from mser import build_head  # noqa: PLC0415 -- as a user does

    examples = find_examples(filled_cache, "synthetic", BOTH)
    config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
    folds = {fold["fold"]: fold for fold in read_json(run.path / "folds.json")["folds"]}
    by_id = {utterance.id: utterance for utterance in examples.utterances}
    settings = small(config["head"], filled_cache, Path())
    trainer = trainer_of(settings, examples)
    torch.manual_seed(99)
    head = build_head(
        config["head"],
        {modality: entry.dim for modality, entry in examples.entries.items()},
        len(CLASSES),
        {modality: entry.n_layers for modality, entry in examples.entries.items()},
        **config["head_options"],
    )
    for fold in ("ses01", "ses04"):
        head.load_state_dict(load_file(run.path / "checkpoints" / f"{fold}-seed3.safetensors"))
        test = [by_id[id] for id in folds[fold]["test"]]
        logits = trainer.predict(head, trainer.features(head), test)
        again = logits.double().softmax(1).tolist()
        written = [r for r in rows(run) if (r["fold"], r["seed"]) == (fold, "3")]
        assert [row["id"] for row in written] == folds[fold]["test"]
        assert [[float(row[f"p_{name}"]) for name in CLASSES] for row in written] == again


def test_the_same_run_again_gives_the_same_bytes(
    run: Run, filled_cache: Path, tmp_path: Path
) -> None:
    random.seed(1)
    torch.manual_seed(1)
    torch.rand(5)  # numbers drawn before have no influence
    again = train_head(small(run.metrics["head"], filled_cache, tmp_path / "again", seeds=(0, 3)))
    for name in ("predictions.csv", "metrics.json", "folds.json", "config.toml"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes(), name
    for file in (run.path / "checkpoints").iterdir():
        assert (again.path / "checkpoints" / file.name).read_bytes() == file.read_bytes()
    timeless = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in log(done)]
        for done in (run, again)
    ]
    assert timeless[0] == timeless[1]


def test_the_result_of_a_seed_does_not_depend_on_other_seeds(
    run: Run, filled_cache: Path, tmp_path: Path
) -> None:
    of_seed = {
        seed: {
            row["id"]: [row[f"p_{name}"] for name in CLASSES]
            for row in rows(run)
            if row["seed"] == seed
        }
        for seed in ("0", "3")
    }
    assert of_seed["0"] != of_seed["3"]
    alone = train_head(small(run.metrics["head"], filled_cache, tmp_path / "alone", seeds=(3,)))
    assert {row["id"]: [row[f"p_{name}"] for name in CLASSES] for row in rows(alone)} == (
        of_seed["3"]
    )


def test_a_run_prints_its_scores(run: Run) -> None:
    text = str(run)
    wa = run.metrics["aggregate"]["wa"]
    assert f"{100 * wa['mean']:.1f} ± {100 * wa['std']:.1f}" in text
    assert "note: synthetic voices" in text
    assert str(run.path) in text


# Its place ----------------------------------------------------------------------------------------


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    (tmp_path / "run").mkdir()
    train_head(made(cache, tmp_path / "run"))  # an empty folder is used
    before = (tmp_path / "run" / "predictions.csv").read_bytes()
    with pytest.raises(UsageError, match=r"another run, with epochs = 4 and not 1: give another"):
        train_head(made(cache, tmp_path / "run", "epochs=1"))
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="already exists and is not the folder of a run"):
        train_head(made(cache, tmp_path / "file"))


def test_a_folder_that_is_not_a_run_is_not_changed(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(
        UsageError, match="already exists and is not the folder of a run: give another folder"
    ):
        train_head(made(cache, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_runs_without_a_name_are_named_by_their_settings(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    settings = replace(made(cache, tmp_path), out=None, runs=tmp_path / "runs")
    first, other = train_head(settings), train_head(settings.with_overrides(["epochs=3"]))
    assert {first.path, other.path} == set((tmp_path / "runs").iterdir())
    assert first.path != other.path
    assert first.path.name.startswith("made-up-linear-")
    before = (first.path / "metrics.json").stat().st_mtime_ns
    again = train_head(settings)  # is only read
    assert again == first
    assert (first.path / "metrics.json").stat().st_mtime_ns == before


def test_other_features_are_another_run(tmp_path: Path) -> None:
    corpus = official()
    cache = made_cache(tmp_path / "cache", corpus)
    train_head(made(cache, tmp_path / "run"))
    shorter = made_cache(tmp_path / "shorter", corpus, frames={"train/u00": 2})
    shutil.rmtree(cache)
    shorter.rename(cache)
    with pytest.raises(UsageError, match="was trained on other features, labels or utt"):
        train_head(made(cache, tmp_path / "run"))


# Odd names ----------------------------------------------------------------------------------------


def test_odd_ids_and_names_reach_the_predictions(tmp_path: Path) -> None:
    odd = ['a,"b"', "line\nbreak", "ü🙂", "../up"]
    corpus = [*official(test=1), *(make_utterance(id, split="test") for id in odd)]
    done = train_head(made(made_cache(tmp_path / "cache", corpus), tmp_path / "run"))
    assert {row["id"] for row in rows(done)} == {*odd, "test/u00"}


@pytest.mark.parametrize(
    "sessions",
    [
        ("a/b", "../c"),
        ("..", "/etc"),
        ("a/b", "a b"),
    ],
)
def test_a_session_may_have_any_name(tmp_path: Path, sessions: tuple[str, str]) -> None:
    corpus = [make_utterance(f"{name}-{n}", session=name) for name in sessions for n in range(8)]
    cache = made_cache(tmp_path / "cache", corpus, protocol="leave-one-session-out")
    done = train_head(made(cache, tmp_path / "folder" / "run"))
    assert {fold["fold"] for fold in done.metrics["folds"]} == set(sessions)
    assert len(list((done.path / "checkpoints").iterdir())) == 2
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["run"]
    assert {path.name for path in done.path.iterdir()} == CONTENT


DROPOUT = signature(HEADS["linear"]).parameters["dropout"].default


@pytest.mark.parametrize(
    ("head", "first", "second"),
    [
        ("linear", ["weight_decay=0"], ["weight_decay=0.0"]),
        ("linear", ["head.dropout=0"], ["head.dropout=0.0"]),
        ("query", ["head.masking=0.25", "head.width=16"], ["head.width=16", "head.masking=0.25"]),
        (
            "linear",
            [],
            [f"head.dropout={DROPOUT}"],
        ),
        ("linear", [], ["clip=0"]),
    ],
)
def test_equal_settings_give_equal_names(head: str, first: list[str], second: list[str]) -> None:
    names = {named_by_content(Path("runs"), configuration(head, *of)) for of in (first, second)}
    assert len(names) == 1


def test_other_options_give_other_names() -> None:
    texts: tuple[list[str], ...] = (
        [],
        ["head.dropout=0.5"],
        ["head.dropout=0.25"],
        ["clip=1"],
        ["clip=2"],
    )
    names = {named_by_content(Path("runs"), configuration("linear", *of)) for of in texts}
    assert len(names) == len(texts)


def configuration(head: str, *assignments: str) -> dict[str, Any]:
    settings = made(Path("cache"), Path("run"), *assignments, head=head)
    return settings.as_config() | {"encoders": {}}


def test_a_run_continues_with_options_that_are_written_otherwise(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    train_head(made(cache, tmp_path / "run", "head.dropout=0"))
    again = train_head(made(cache, tmp_path / "run", "head.dropout=0.0"))
    assert again.path == tmp_path / "run"
    with pytest.raises(UsageError, match=r"head_options.dropout at its default and not 0.5"):
        train_head(made(cache, tmp_path / "run", "head.dropout=0.5"))
