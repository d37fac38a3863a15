"""Logit adjustment: the formula, how its strength is chosen, and that a checkpoint keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from mser.heads.objectives import Classes
from mser.pipeline.corpora import Utterance
from mser.pipeline.runs.evaluate import evaluate
from mser.pipeline.targets import EMOTION, Targets
from mser.pipeline.train import train_head
from mser.pipeline.train.logit_adjustment import STRENGTHS, adjust
from mser.pipeline.train.objectives import OutputScorer
from mser.tests.support.train_runs import (
    CLASSES,
    made_both,
    make_utterance,
    official,
    rows,
    tiny,
)

COUNTS = (60, 25, 10, 5)
COLUMNS = [f"p_{name}" for name in CLASSES]


def rare(count: int, seed: int) -> list[str]:
    """Labels of which the later ones are rare."""
    drawn = np.random.default_rng(seed).choice(4, count, p=np.array(COUNTS) / sum(COUNTS))
    return [CLASSES[number] for number in drawn]


def labelled(labels: list[str], split: str) -> list[Utterance]:
    return [make_utterance(f"{split}/{n}", label=label) for n, label in enumerate(labels)]


@pytest.mark.parametrize("metric", ["weighted_f1", "ua"])
def test_the_strength_with_the_best_score_moves_the_outputs(metric: str) -> None:
    train = [name for name, count in zip(CLASSES, COUNTS, strict=True) for _ in range(count)]
    known = rare(400, 1)
    y = np.array([CLASSES.index(name) for name in known])
    # Outputs that have learnt the frequencies, and little of the class.
    frequency = np.log(np.array(COUNTS) / sum(COUNTS))
    outputs = np.random.default_rng(2).normal(size=(400, 4)) + 0.7 * np.eye(4)[y] + frequency

    scores = {}
    for tau in STRENGTHS:
        found = (outputs - tau * frequency).argmax(axis=1)
        scores[tau] = (
            f1_score(y, found, average="weighted")
            if metric == "weighted_f1"
            else balanced_accuracy_score(y, found)
        )
    expected = max(scores, key=scores.__getitem__)
    assert expected > 0
    assert metric == "ua" or expected < 1

    objective, part = Classes(4), labelled(known, "validation")
    chosen = adjust(
        objective,
        Targets(EMOTION, CLASSES),
        labelled(train, "train"),
        lambda scorer: (scorer(torch.tensor(outputs), part)[metric], 0.0),
    )
    assert chosen == expected
    moved = np.exp(outputs - expected * frequency)
    torch.testing.assert_close(
        objective.predictions(torch.tensor(outputs)),
        torch.tensor(moved / moved.sum(axis=1, keepdims=True)),
        rtol=1e-6,
        atol=1e-6,
    )


def test_without_a_gain_nothing_moves_and_an_absent_class_stays() -> None:
    objective = Classes(4)
    train = labelled([CLASSES[0], CLASSES[0], CLASSES[1]], "train")
    targets = Targets(EMOTION, CLASSES)
    assert adjust(objective, targets, train, lambda _: (1.0, 0.0)) == 0
    assert objective.offset is not None
    assert objective.offset.tolist() == [0, 0, 0, 0]

    def rank(scorer: OutputScorer) -> tuple[float, float]:
        assert isinstance(scorer.objective, Classes)
        assert scorer.objective.offset is not None
        return float(scorer.objective.offset[1]), 0.0

    by_offset = adjust(objective, targets, train, rank)
    assert by_offset == 1
    expected = [np.log(3 / 2), np.log(3), 0, 0]
    assert objective.offset.tolist() == pytest.approx(expected)


@pytest.fixture(scope="module")
def imbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = official(train=60, validation=30, test=30)
    labels = rare(len(corpus), 0)
    corpus = [replace(u, label=label) for u, label in zip(corpus, labels, strict=True)]
    # The features show two pairs of classes, in each of which one is rare.
    shown = {"speech": (0, 1, 0, 1), "text": (0, 0, 0, 0)}
    return made_both(tmp_path_factory.mktemp("rare") / "cache", corpus, shown=shown)


@pytest.mark.parametrize(
    ("head", "more"), [("query", ()), ("linear", ("optimizer=auto", "l2=3")), ("hbaf", ())]
)
def test_a_run_predicts_with_the_adjusted_outputs_and_keeps_them(
    imbalanced: Path, tmp_path: Path, head: str, more: tuple[str, ...]
) -> None:
    asked = ("epochs=2", "monitor=ua", *more)
    plain = train_head(tiny(head, imbalanced, tmp_path / "plain", *asked))
    run = train_head(
        tiny(head, imbalanced, tmp_path / "run", *asked, "logit_adjustment=validation")
    )
    (before,), (fold,) = plain.metrics["folds"], run.metrics["folds"]
    tau = fold["validation"]["logit_adjustment"]
    assert tau > 0
    assert fold["validation"]["ua"] > before["validation"]["ua"]
    assert "logit_adjustment" not in before["validation"]
    # The strength was chosen by outputs of models that had not seen the part.
    assert fold["validation"]["loss"] == pytest.approx(before["validation"]["loss"])

    (parts,) = json.loads((run.path / "folds.json").read_text())["folds"]
    ids = [u.id for u in official(train=60, validation=30, test=30)]
    label = dict(zip(ids, rare(len(ids), 0), strict=True))
    train = [label[id] for id in parts["train"]]
    assert len(train) == 60
    share = np.array([np.mean([each == name for each in train]) for name in CLASSES])
    share[share == 0] = 1
    probabilities = [
        np.array([[float(row[c]) for c in COLUMNS] for row in rows(each)]) for each in (plain, run)
    ]
    expected = probabilities[0] * share**-tau
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities[1], expected, rtol=1e-4, atol=1e-6)

    again = evaluate(run).facts["aggregate"]["ua"]["pooled"]
    assert again == run.metrics["aggregate"]["ua"]["pooled"]
