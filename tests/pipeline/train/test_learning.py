"""What a head learns, which of its epochs is kept, and what has no influence on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.train_runs import BOTH, CLASSES, log, made, made_cache, official, rows


def test_early_stopping_stops_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    settings = made(cache, tmp_path / "run", "epochs=400", "patience=3", "learning_rate=0.2")
    done = train_head(settings)
    lines = log(done)
    (fold,) = done.metrics["folds"]
    assert len(lines) == fold["best_epoch"] + 3 < 400
    assert fold["wa"] == 1.0  # the features tell the label


def test_monitor_chooses_the_epoch(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    done = train_head(made(cache, tmp_path / "run", "monitor=ua", "epochs=8"))
    (fold,) = done.metrics["folds"]
    by_epoch = {line["epoch"]: line["validation"]["ua"] for line in log(done)}
    assert by_epoch[fold["best_epoch"]] == max(by_epoch.values())
    assert "ua" in done.metrics["selected_by"]


def test_the_test_part_has_no_influence_on_the_training(tmp_path: Path) -> None:
    corpus = official()
    flipped = [
        replace(one, label=CLASSES[(CLASSES.index(str(one.label)) + 1) % 4])
        if one.split == "test"
        else one
        for one in corpus
    ]
    one, other = (
        train_head(made(made_cache(tmp_path / f"cache{n}", some), tmp_path / f"run{n}"))
        for n, some in enumerate((corpus, flipped))
    )
    weights = "checkpoints/official-seed0.safetensors"
    assert (one.path / weights).read_bytes() == (other.path / weights).read_bytes()
    assert one.metrics["folds"][0]["best_epoch"] == other.metrics["folds"][0]["best_epoch"]
    assert {r["id"]: r["predicted"] for r in rows(one)}.keys() == {
        r["id"]: r["predicted"] for r in rows(other)
    }.keys()


def test_a_head_learns_what_can_be_learnt(filled_cache: Path, tmp_path: Path) -> None:
    """On sessions that it has not seen; random encoders carry a part of the emotion."""
    settings = TrainSettings(
        "linear", "synthetic", filled_cache, BOTH, out=tmp_path / "run", seeds=(0, 1)
    )
    overrides = ["epochs=20", "patience=40", "learning_rate=0.1"]
    done = train_head(settings.with_overrides(overrides))
    chance = done.metrics["chance"]["wa"]["mean"]
    assert chance == pytest.approx(0.25)
    assert done.metrics["aggregate"]["wa"]["mean"] > chance + 0.1


def test_chance_is_the_most_frequent_class_of_the_training_part(tmp_path: Path) -> None:
    corpus = [
        replace(one, label="sad" if n % 3 else "happy") if one.split != "test" else one
        for n, one in enumerate(official())
    ]
    done = train_head(made(made_cache(tmp_path / "cache", corpus), tmp_path / "run"))
    labels = [one.label for one in corpus if one.split == "test"]
    assert done.metrics["chance"]["wa"]["mean"] == labels.count("sad") / len(labels)
