"""Metrics of attributes, votes and several labels, against scipy, scikit-learn and the formulas."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy, pearsonr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from mser.pipeline.evaluation.bootstrap import bootstrap
from mser.pipeline.evaluation.metrics import Predictions, aggregate, scores
from mser.pipeline.evaluation.scorers import metric_named, scorer_of
from mser.pipeline.targets import Targets

VA = Targets(("valence", "arousal"), ())
VALENCE = Targets(("valence",), ())
VOTES = Targets(("votes",), ("a", "b", "c"))
LABELS = Targets(("labels",), ("a", "b", "c"))
BOTH = Targets(("emotion", "valence"), ("a", "b"))


def rows(n: int, width: int, seed: int = 0) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.random.default_rng(seed).normal(3, 2, (n, width)).tolist()]


def distributions(n: int, seed: int) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.random.default_rng(seed).dirichlet([1, 2, 1], n).tolist()]


def slow_ccc(x: np.ndarray, y: np.ndarray) -> float:
    r = pearsonr(x, y).statistic
    return float(2 * r * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_attributes_are_scored_as_by_scipy(shift: float) -> None:
    y, x = np.array(rows(40, 2)), np.array(rows(40, 2, seed=1)) + np.array(rows(40, 2))
    found = scores((y + shift).tolist(), (x + shift).tolist(), scorer_of(VA))
    for column, name in enumerate(VA.names):
        a, b = x[:, column], y[:, column]
        assert found[f"pearson_{name}"] == pytest.approx(pearsonr(a, b).statistic, rel=1e-6)
        assert found[f"ccc_{name}"] == pytest.approx(slow_ccc(a, b), rel=1e-6)
        assert found[f"mse_{name}"] == pytest.approx(((a - b) ** 2).mean(), rel=1e-6)
    for metric in ("ccc", "pearson", "mse"):
        each = [found[f"{metric}_{name}"] for name in VA.names]
        assert found[metric] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([(1.0,), (2.0,), (4.0,)], [(2.1,)] * 3),  # the mean of a training part
        ([(2.0,)] * 3, [(1.0,), (2.0,), (4.0,)]),
        ([(2.0,)] * 3, [(2.0,)] * 3),
        ([(0.1,)], [(3.0,)]),  # one utterance
        ([(1e8,), (1e8 + 1,)], [(1e8 + 0.3,)] * 2),
    ],
)
def test_no_correlation_is_zero_and_not_nan(labels, predicted) -> None:
    found = scores(labels, predicted, scorer_of(VALENCE))
    assert (found["ccc"], found["pearson"]) == (0.0, 0.0)
    error = np.mean([(a[0] - b[0]) ** 2 for a, b in zip(labels, predicted, strict=True)])
    assert found["mse"] == pytest.approx(error, abs=1e-12)


def test_a_perfect_prediction_of_attributes() -> None:
    found = scores(rows(9, 1), rows(9, 1), scorer_of(VALENCE))
    assert found == pytest.approx({"ccc": 1, "pearson": 1, "mse": 0}, abs=1e-12)


def test_votes_are_scored_by_their_majority_and_by_kl() -> None:
    q, p = distributions(50, 0), distributions(50, 1)
    found = scores(q, p, scorer_of(VOTES))
    labels, best = np.argmax(q, axis=1), np.argmax(p, axis=1)
    assert found["wa"] == pytest.approx(accuracy_score(labels, best))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, best, average="macro"))
    assert found["kl"] == pytest.approx(np.mean([entropy(a, b) for a, b in zip(q, p, strict=True)]))


def test_a_tie_of_votes_is_in_no_metric_of_classes() -> None:
    q = [(0.5, 0.5, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)]
    p = [(0.1, 0.1, 0.8), (0.0, 0.0, 1.0), (0.9, 0.1, 0.0)]
    found = scores(q, p, scorer_of(VOTES))
    assert found["wa"] == 0.5
    assert np.isfinite(found["kl"])  # although a class with a vote has the probability 0
    only = scores(q[:1], p[:1], scorer_of(VOTES))
    assert only["wa"] == 0
    details = scorer_of(VOTES).details(q[:1], p[:1])
    assert details["confusion"] == [[0] * 3] * 3
    assert scorer_of(VOTES).details(q, p)["per_class"]["c"]["recall"] == 1


@pytest.mark.parametrize("decimals", [8, 1])  # 1: many equal probabilities
def test_several_labels_are_scored_as_by_scikit_learn(decimals: int) -> None:
    random = np.random.default_rng(0)
    y = (random.random((60, 3)) < [0.2, 0.5, 0.8]).astype(float)
    p = np.round(random.random((60, 3)), decimals)
    found = scores(y.tolist(), p.tolist(), scorer_of(LABELS))
    chosen = p >= 0.5
    assert found["macro_f1"] == pytest.approx(f1_score(y, chosen, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(y, chosen, average="micro"))
    each = [average_precision_score(y[:, c], p[:, c]) for c in range(3)]
    assert found["map"] == pytest.approx(np.mean(each))


def test_several_labels_without_a_label_are_zero() -> None:
    found = scores([(0.0, 0.0, 0.0)], [(0.2, 0.1, 0.0)], scorer_of(LABELS))
    assert found == {"macro_f1": 0, "micro_f1": 0, "map": 0}


def test_both_kinds_are_scored_side_by_side() -> None:
    labels = [("a", 1.0), ("b", 2.0), ("b", 4.0)]
    predicted = [("a", 1.5), ("a", 2.0), ("b", 3.0)]
    found = scores(labels, predicted, scorer_of(BOTH))
    assert found["wa"] == pytest.approx(2 / 3)
    x, y = np.array([1.5, 2, 3]), np.array([1.0, 2, 4])
    assert found["ccc"] == pytest.approx(slow_ccc(x, y))


@pytest.mark.parametrize("targets", [VA, VOTES, LABELS, BOTH])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_bootstrap_sample_is_scored_as_its_utterances(targets: Targets, grouped: bool) -> None:
    """Each sample, written out utterance by utterance, has the scores that the bootstrap gives."""
    n, random = 12, np.random.default_rng(1)
    labels: list[Any]
    one: list[Any]
    two: list[Any]
    if targets is BOTH:
        labels = [("ab"[k % 2], float(k)) for k in range(n)]
        one = [("ab"[k % 3 == 0], float(k % 5)) for k in range(n)]
        two = [("ab"[k % 5 == 0], float(k % 4)) for k in range(n)]
    elif targets is LABELS:
        labels = [tuple(row) for row in (random.random((n, 3)) < 0.5).astype(float).tolist()]
        one, two = distributions(n, 2), distributions(n, 3)
    elif targets is VOTES:
        labels, one, two = (distributions(n, seed) for seed in range(3))
    else:
        labels, one, two = (rows(n, 2, seed) for seed in range(3))
    groups = [k // 3 for k in range(n)] if grouped else None
    scorer = scorer_of(targets)
    units = scorer.units(labels, list(zip(one, two, strict=True)), groups)
    samples = units.draw(5, np.random.default_rng(0))
    found = units.scores(samples)
    members = [
        [k for k in range(n) if (groups is None and k == u) or (groups and k // 3 == u)]
        for u in range(len(units.counts))
    ]
    for number, sample in enumerate(samples):
        chosen = [k for u, times in enumerate(sample) for k in members[u] * int(times)]
        for column, predicted in enumerate((one, two)):
            expected = scores([labels[k] for k in chosen], [predicted[k] for k in chosen], scorer)
            for name, value in expected.items():
                assert found[name][number, column] == pytest.approx(value, abs=1e-9), name


def test_the_summary_has_intervals_and_every_metric_a_title() -> None:
    parts = [Predictions("one", seed, rows(20, 2), rows(20, 2, seed + 1)) for seed in (0, 1)]
    summary = aggregate(parts, scorer_of(VA), resamples=200)
    low, high = summary["ccc"]["pooled_ci95"]
    assert low < summary["ccc"]["pooled"] < high
    assert list(summary)[:3] == ["ccc", "pearson", "mse"]
    for targets in (VA, VALENCE, VOTES, LABELS, BOTH):
        for name, metric in scorer_of(targets).metrics.items():
            known = metric_named(name)
            assert known is not None
            assert known.title == metric.title
    ccc, error = metric_named("ccc_valence"), metric_named("mse")
    assert ccc is not None
    assert error is not None
    assert ccc.text(0.5) == "0.500"
    assert ccc.larger_is_better
    assert not error.larger_is_better
    assert metric_named("nothing") is None


def test_the_bootstrap_of_attributes_always_gives_the_same() -> None:
    units = scorer_of(VA).units(rows(15, 2), [(row,) for row in rows(15, 2, 1)])
    first, second = bootstrap(units, 100), bootstrap(units, 100)
    assert np.array_equal(first["ccc"], second["ccc"])
