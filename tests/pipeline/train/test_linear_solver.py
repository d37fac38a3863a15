"""The strength of L2 is chosen on validation, and the trained head is logistic regression."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Sklearn
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from mser.cache import FeatureCache
from mser.heads.objectives import Classes
from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.train import TrainSettings, linear_paths, linear_solver, train_head
from mser.pipeline.train.linear_solver import LinearProblem, whole_groups
from mser.tests.support.train_runs import (
    BOTH,
    CLASSES,
    log,
    made_both,
    make_utterance,
    official,
    rows,
)

STRENGTHS = (1.0, 0.1, 0.01)


def problem(
    n_train: int, n_validation: int, groups: Sequence[str] = (), width: int = 12
) -> LinearProblem:
    generator = torch.Generator().manual_seed(0)
    n = n_train + n_validation
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    y = (x[:, :3] + 2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)).argmax(dim=1)

    def score(logits: torch.Tensor, rows: Sequence[int]):
        loss = float(torch.nn.functional.cross_entropy(logits, y[list(rows)]))
        return {"loss": loss}, (-loss, 0.0)

    return LinearProblem(
        x, y, n_train, Classes(3), groups or [str(i) for i in range(n)], False, score
    )


def fitted(asked: LinearProblem, rows: Sequence[int], strength: float) -> Sklearn:
    model = Sklearn(C=1 / (strength * len(rows)), tol=1e-8, max_iter=10_000)
    return model.fit(asked.inputs[rows].numpy(), asked.targets[rows].numpy())


def loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_the_strength_of_the_best_validation_score_is_fitted_to_both_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_solver, "SMALL_VALIDATION", 100)
    asked = problem(200, 150)
    lines: list[tuple[int, float, dict[str, float]]] = []
    chosen = asked.solve(STRENGTHS, lambda *values: lines.append(values))
    train, validation = list(range(200)), list(range(200, 350))
    x, y = asked.inputs.numpy(), asked.targets.numpy()
    expected = [
        loss(fitted(asked, train, strength).predict_proba(x[validation]), y[validation])
        for strength in STRENGTHS
    ]
    assert [(number, strength) for number, strength, _ in lines] == [*enumerate(STRENGTHS, 1)]
    assert [values["loss"] for *_, values in lines] == pytest.approx(expected, abs=1e-3)
    assert chosen.strength == STRENGTHS[int(np.argmin(expected))]
    both = fitted(asked, train + validation, chosen.strength)
    found = chosen.model.logits(asked.inputs).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, both.predict_proba(x), atol=3e-3)


@pytest.mark.parametrize("width", [12, 200])
def test_a_small_validation_part_is_replaced_by_cross_validation_over_whole_groups(
    width: int,
) -> None:
    groups = [str(i % 9) for i in range(90)]
    asked = problem(70, 20, groups, width)
    chosen = asked.solve(STRENGTHS)
    x, y = asked.inputs.numpy(), asked.targets.numpy()
    losses, models = [], {}
    for strength in STRENGTHS:
        folds = list(GroupKFold(9).split(x, groups=groups))
        models[strength] = [fitted(asked, learn.tolist(), strength) for learn, _ in folds]
        held_out = [
            (model.predict_proba(x[rows]), y[rows])
            for model, (_, rows) in zip(models[strength], folds, strict=True)
        ]
        losses.append(loss(*(np.concatenate(part) for part in zip(*held_out, strict=True))))
    assert chosen.strength == STRENGTHS[int(np.argmin(losses))]
    assert chosen.validation["loss"] == pytest.approx(min(losses), abs=1e-3)
    mean = np.mean([x @ m.coef_.T + m.intercept_ for m in models[chosen.strength]], axis=0)
    np.testing.assert_allclose(chosen.model.logits(asked.inputs).numpy(), mean, atol=2e-2)


def test_single_precision_has_the_weights_of_scikit_learn_at_a_weak_strength(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_solver, "SMALL_VALIDATION", 100)
    exact = problem(200, 150, width=40)
    generator = torch.Generator().manual_seed(1)
    correlated = exact.inputs @ torch.randn(40, 40, generator=generator, dtype=torch.float64)
    exact = replace(exact, inputs=correlated)
    chosen = replace(exact, inputs=correlated.float()).solve([1e-5])
    expected = fitted(exact, range(350), 1e-5).coef_
    assert chosen.model.weight.dtype == chosen.held_out[0].dtype == torch.float32
    assert abs(chosen.model.weight.numpy() - expected).max() < 1.5e-4 * abs(expected).max()


def test_a_class_that_only_one_group_has_is_learnt_from_the_other_splits() -> None:
    groups = [str(i // 10) for i in range(60)]
    labels = torch.tensor([2] * 5 + [0, 1] * 27 + [0])  # class 2 only in the first group
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = 4 * torch.nn.functional.one_hot(labels, 3).double() + 0.3 * noise

    def score(logits: torch.Tensor, rows: Sequence[int]):
        wa = float((logits.argmax(dim=1) == labels[list(rows)]).double().mean())
        return {"wa": wa}, (wa, 0.0)

    asked = LinearProblem(inputs, labels, 50, Classes(3), groups, False, score)
    logits = asked.solve([0.01]).model.logits(inputs)
    assert torch.equal(logits.argmax(dim=1), labels)
    folds = GroupKFold(6).split(inputs, groups=groups)
    knows = [learn.tolist() for learn, _ in folds if 0 in learn]
    models = [fitted(asked, learn, 0.01) for learn in knows]
    expected = np.mean([inputs.numpy() @ m.coef_[2] + m.intercept_[2] for m in models], axis=0)
    assert len(models) == 5
    np.testing.assert_allclose(logits[:, 2].numpy(), expected, atol=2e-2)


def test_what_the_parts_do_not_share_is_kept_whole() -> None:
    def part(names: str, **columns: str):
        return [make_utterance(f"{n}", **columns, dialogue=f"d{n}") for n in names]

    train = part("ab", session="1", speaker="f") + part("c", session="1", speaker="m")
    assert whole_groups(train, part("d", session="2", speaker="g")) == ["1", "1", "1", "2"]
    assert whole_groups(train, part("d", session="1", speaker="g")) == ["f", "f", "m", "g"]
    assert whole_groups(train, part("d", session="1", speaker="f")) == ["da", "db", "dc", "dd"]


# A training ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modalities, of which each shows a part of the label. Do not change it."""
    shown = {"speech": (0, 0, 1, 1), "text": (0, 1, 0, 1)}
    root = tmp_path_factory.mktemp("solver") / "cache"
    return made_both(root, official(120, 40, 40), shown=shown)


def settings(cache: Path, out: Path, *asked: str) -> TrainSettings:
    made = TrainSettings("linear", "made-up", cache, BOTH, out=out, device="cpu")
    return made.with_overrides(asked)


@pytest.mark.parametrize("pooling", ["mean", "mean_std"])
def test_the_head_is_scikit_learn_on_standardised_statistics(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    """Six lines of scikit-learn on the concatenated layers of both modalities.

    The inputs of text are multiplied so that their variances sum up to those of speech.
    """
    monkeypatch.setattr(linear_solver, "SMALL_VALIDATION", 0)
    run = train_head(settings(cache, tmp_path / "run", "l2=0.01", f"head.pooling={pooling}"))
    entries = [FeatureCache(cache).open("made-up", modality=m) for m in BOTH]

    def vectors(split: str) -> np.ndarray:
        ids = [id for id in entries[0].ids if id.startswith(split)]
        found = []
        for entry in entries:
            for position in range(entry.n_layers):
                frames = [np.asarray(states[position], float) for states in entry.read(ids)]
                found.append(np.stack([x.mean(axis=0) for x in frames]))
                if pooling == "mean_std":
                    found.append(np.stack([x.std(axis=0) for x in frames]))
        return np.concatenate(found, axis=1)

    def labels(split: str) -> list[str]:
        return [str(make_utterance(id).label) for id in entries[0].ids if id.startswith(split)]

    speech, text = (entry.n_layers * entry.dim * (1 + (pooling == "mean_std")) for entry in entries)
    assert speech > text
    scale = np.repeat([1, (speech / text) ** 0.5], [speech, text])
    scaler = StandardScaler().fit(vectors("train"))
    both = scale * scaler.transform(np.concatenate([vectors("train"), vectors("validation")]))
    model = Sklearn(C=1 / (0.01 * len(both)), tol=1e-8, max_iter=10_000)
    model.fit(both, labels("train") + labels("validation"))
    expected = model.predict_proba(scale * scaler.transform(vectors("test")))
    found = {row["id"]: [float(row[f"p_{name}"]) for name in CLASSES] for row in rows(run)}
    np.testing.assert_allclose([found[id] for id in sorted(found)], expected, atol=5e-3)


def test_the_log_holds_a_line_for_each_strength(cache: Path, tmp_path: Path) -> None:
    run = train_head(settings(cache, tmp_path / "run"))
    lines = log(run)
    strengths = [line["l2"] for line in lines]
    assert strengths == list(linear_paths.STRENGTHS[: len(lines)])
    (fold,) = run.metrics["folds"]
    assert fold["validation"]["l2"] == strengths[fold["best_epoch"] - 1]
    best = max(line["validation"]["weighted_f1"] for line in lines)
    assert fold["validation"]["weighted_f1"] == best
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]


def test_a_modality_that_is_missing_in_the_test_is_the_mean(cache: Path, tmp_path: Path) -> None:
    run = train_head(settings(cache, tmp_path / "run"))
    assert run.metrics["aggregate"]["wa"]["mean"] > 0.9
    without = evaluate(run.path, ["text"], device="cpu").facts["aggregate"]["wa"]["mean"]
    assert 0.3 < without < 0.75  # speech tells two pairs of classes apart


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("optimizer=lbfgs", "head.dropout=0.5"), "optimizer=lbfgs needs a linear head"),
        (("optimizer=adamw", "l2=0.1"), "l2 is the strength for optimizer=lbfgs"),
        (("l2=0",), "l2"),
    ],
)
def test_settings_that_do_not_fit_the_head_are_refused(
    cache: Path, tmp_path: Path, asked: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        train_head(settings(cache, tmp_path / "run", *asked))
    assert not (tmp_path / "run").exists()
