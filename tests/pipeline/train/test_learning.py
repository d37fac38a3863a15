"""What a head learns, and what has no influence on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.train_runs import BOTH, CLASSES, log, made, made_cache, official, rows

pytestmark = pytest.mark.exhaustive


def test_early_stopping_stops_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    settings = made(cache, tmp_path / "run", "epochs=400", "patience=3", "learning_rate=0.2")
    done = train_head(settings)
    lines = log(done)
    (fold,) = done.metrics["folds"]
    assert len(lines) == fold["best_epoch"] + 3 < 400
    assert fold["wa"] == 1.0  # the features show the label


def test_the_test_part_has_no_influence_on_the_training(tmp_path: Path) -> None:
    """With the same features, but other labels of the test part, the same epoch is kept.

    The better the head is on the validation part, the worse it is on those other labels.
    """
    corpus = official()
    other_labels = [
        replace(utterance, label=CLASSES[(CLASSES.index(str(utterance.label)) + 1) % 4])
        if utterance.split == "test"
        else utterance
        for utterance in corpus
    ]
    shown = {utterance.id: str(utterance.label) for utterance in corpus}
    asked = ("epochs=30", "patience=99", "learning_rate=0.05")
    first, other = (
        train_head(
            made(
                made_cache(tmp_path / f"cache{n}", some, shown=shown), tmp_path / f"run{n}", *asked
            )
        )
        for n, some in enumerate((corpus, other_labels))
    )
    weights = "checkpoints/official-seed0.safetensors"
    assert (first.path / weights).read_bytes() == (other.path / weights).read_bytes()
    (fold,), (other_fold,) = first.metrics["folds"], other.metrics["folds"]
    assert fold["best_epoch"] == other_fold["best_epoch"] > 1
    assert fold["validation"] == other_fold["validation"]
    assert fold["validation"]["wa"] == 1.0
    assert (fold["wa"], other_fold["wa"]) == (1.0, 0.0)
    assert [row["predicted"] for row in rows(first)] == [row["predicted"] for row in rows(other)]


def test_a_head_learns_what_can_be_learnt(filled_cache: Path, tmp_path: Path) -> None:
    """On new sessions; features of random encoders carry a part of the emotion."""
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
        replace(utterance, label="sad" if n % 3 else "happy")
        if utterance.split != "test"
        else utterance
        for n, utterance in enumerate(official())
    ]
    done = train_head(made(made_cache(tmp_path / "cache", corpus), tmp_path / "run"))
    labels = [utterance.label for utterance in corpus if utterance.split == "test"]
    assert done.metrics["chance"]["wa"]["mean"] == labels.count("sad") / len(labels)
