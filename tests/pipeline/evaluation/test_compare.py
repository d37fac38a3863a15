"""Comparison of two runs: differences, intervals, p values, notes and errors."""

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.evaluation.bootstrap import (
    bootstrap,
    interval,
    metric_differences,
    resampling_units,
)
from mser.pipeline.evaluation.compare import compare, mcnemar
from mser.pipeline.evaluation.metrics import AlignedPredictions, Predictions, aggregate
from mser.pipeline.evaluation.predictions import read_predictions
from mser.pipeline.evaluation.registry import METRICS
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.predicted_runs import CLASSES, LABELS, write_run
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import made, made_cache, official


def predictions(rng, correct, labels=LABELS):
    """Predictions of which about the share ``correct`` is correct, and the others any class."""
    return np.where(rng.random(len(labels)) < correct, labels, rng.choice(CLASSES, len(labels)))


def similar(rng, original, kept=0.9):
    """The same predictions, except for a few."""
    return np.where(rng.random(len(original)) < kept, original, predictions(rng, 0.4))


def write_folds(run: Path, test_parts) -> None:
    everything = {id for part in test_parts for id in part}
    folds = [
        {"fold": str(n), "train": sorted(everything - set(part)), "validation": [], "test": part}
        for n, part in enumerate(test_parts)
    ]
    content = json.dumps({"folds": folds, "excluded": {}})
    (run / "folds.json").write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs on the same utterances. Do not change them."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("runs")
    weak = predictions(rng, 0.4)
    seeds_of = {
        "weak": {0: weak},
        "alike": {0: similar(rng, weak)},
        "strong": {0: predictions(rng, 0.75)},
        "weak3": {seed: similar(rng, weak) for seed in (0, 1, 2)},
        "strong5": {seed: predictions(rng, 0.75) for seed in (3, 1, 10, 4, 7)},
    }
    return {name: write_run(root / name, seeds) for name, seeds in seeds_of.items()}


# Bootstrap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weak", "strong5"])
def test_a_run_does_not_differ_from_itself(runs, name):
    found = compare(runs[name], runs[name], resamples=200)
    assert list(found.metrics) == list(METRICS)
    for row in found.metrics.values():
        assert (row.difference, row.difference_ci95, row.p) == (0, [0, 0], 1)
        assert row.first_ci95 == row.second_ci95
    assert (found.mcnemar.first_better, found.mcnemar.second_better, found.mcnemar.p) == (0, 0, 1)
    assert found.notes == ()


@pytest.mark.parametrize(("weak", "strong"), [("weak", "strong"), ("weak3", "strong5")])
def test_a_clearly_better_run_is_significantly_better(runs, weak, strong):
    found = compare(runs[weak], runs[strong])
    for row in found.metrics.values():
        assert 0.15 < row.difference < 0.4
        assert row.difference_ci95[0] > 0.05
        assert row.difference_ci95[0] < row.difference < row.difference_ci95[1]
        assert row.p == 2 / 2001
    assert found.mcnemar.second_better > 2 * found.mcnemar.first_better
    assert found.mcnemar.p < 1e-4


def test_runs_of_equal_quality_do_not_differ_significantly(tmp_path):
    rng = np.random.default_rng(11)
    first, second = (write_run(tmp_path / name, {0: predictions(rng, 0.5)}) for name in "ab")
    found = compare(first, second)
    assert all(row.p > 0.05 for row in found.metrics.values())
    assert found.mcnemar.p > 0.05


@pytest.mark.parametrize(("first", "second"), [("weak", "alike"), ("weak3", "strong5")])
def test_swapped_runs_have_the_negative_difference(runs, first, second):
    found = compare(runs[first], runs[second], resamples=500)
    swapped = compare(runs[second], runs[first], resamples=500)
    for metric in METRICS:
        row, other = found.metrics[metric], swapped.metrics[metric]
        assert row.difference == -other.difference
        low, high = other.difference_ci95
        assert row.difference_ci95 == pytest.approx([-high, -low], abs=1e-12)
        assert row.p == other.p
        assert (row.first, row.second_ci95) == (other.second, other.first_ci95)
    test, swapped_test = found.mcnemar, swapped.mcnemar
    assert (test.first_better, test.p) == (swapped_test.second_better, swapped_test.p)


def test_scores_equal_those_of_the_run_itself(runs):
    found = compare(runs["weak3"], runs["strong5"])
    for side, name in (("first", "weak3"), ("second", "strong5")):
        own = aggregate(read_predictions(runs[name]).parts)
        for metric in METRICS:
            assert getattr(found.metrics[metric], side) == own[metric]["pooled"]
            # other samples of the same bootstrap
            ci95 = getattr(found.metrics[metric], f"{side}_ci95")
            assert ci95 == pytest.approx(own[metric]["pooled_ci95"], abs=0.015)


def test_the_paired_interval_is_narrower_than_an_unpaired_one(runs):
    found = compare(runs["weak"], runs["alike"]).metrics["ua"]
    weak, alike = (
        [row for part in read_predictions(runs[name]).parts for row in _rows(part)]
        for name in ("weak", "alike")
    )
    unpaired = [
        bootstrap(resampling_units([row[0] for row in rows], [row[1:] for row in rows]), seed=n)
        for n, rows in enumerate((weak, alike))
    ]
    low, high = interval(metric_differences(unpaired[0]["ua"], unpaired[1]["ua"]))
    paired_low, paired_high = found.difference_ci95
    assert paired_high - paired_low < 0.7 * (high - low)


def _rows(part: Predictions):
    return zip(part.labels, part.predicted, strict=True)


def test_the_order_of_rows_does_not_matter(runs, tmp_path):
    lines = (runs["strong5"] / "predictions.csv").read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other"
    other.mkdir()
    text = "\n".join([lines[0], *reversed(lines[1:])])
    (other / "predictions.csv").write_text(text, encoding="utf-8")
    found = [compare(runs["weak"], run, resamples=200) for run in (runs["strong5"], other)]
    assert found[0].metrics == found[1].metrics
    assert found[0].mcnemar == found[1].mcnemar


def test_whole_dialogues_can_be_drawn(tmp_path):
    rng = np.random.default_rng(2)
    # The second run is all correct on half of the dialogues.
    better = np.repeat(rng.random(24) < 0.5, 10)
    weak = predictions(rng, 0.3)
    first = write_run(tmp_path / "a", {0: weak})
    second = write_run(tmp_path / "b", {0: np.where(better, LABELS, weak)})
    groups = {f"d{n % 7}, u{n}": str(n // 10) for n in range(240)}
    alone = compare(first, second, "wa").metrics["wa"]
    whole = compare(first, second, "wa", groups=groups).metrics["wa"]
    assert whole.difference == alone.difference
    (low, high), (wide_low, wide_high) = alone.difference_ci95, whole.difference_ci95
    assert wide_high - wide_low > 1.5 * (high - low)
    del groups["d0, u0"]
    with pytest.raises(UsageError, match="groups does not contain 'd0, u0'"):
        compare(first, second, groups=groups)


# McNemar's test -----------------------------------------------------------------------------------


def aligned(labels, *seeds) -> AlignedPredictions:
    return AlignedPredictions(
        tuple(range(len(labels))),
        tuple(labels),
        tuple(zip(*seeds, strict=True)),
        (*range(len(seeds)),),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 5))
def test_mcnemar_is_a_sum_of_binomials(only_first, only_second, both):
    labels = "a" * (only_first + only_second + both)
    first = "a" * only_first + "b" * only_second + "a" * both
    second = "b" * only_first + "a" * only_second + "a" * both
    found = mcnemar(aligned(labels, first), aligned(labels, second))
    n = only_first + only_second
    tail = sum(comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    assert (found.first_better, found.second_better) == (only_first, only_second)
    assert found.seeds == 1
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_counts_an_utterance_once_for_any_number_of_seeds():
    labels, first, second = "a" * 20, "a" * 15 + "b" * 5, "a" * 9 + "b" * 11
    one = mcnemar(aligned(labels, first), aligned(labels, second))
    many = mcnemar(aligned(labels, *[first] * 9), aligned(labels, *[second] * 9))
    assert (many.first_better, many.second_better, many.p) == (6, 0, one.p)
    assert (one.seeds, many.seeds) == (1, 9)


def test_mcnemar_compares_the_numbers_of_correct_seeds():
    #            1 of 2 against 2 of 2; 1 against 1; 2 against 0; 0 against 0
    first = aligned("aaaa", "abab", "baab")
    second = aligned("aaaa", "aabc", "abbb")
    found = mcnemar(first, second)
    assert (found.first_better, found.second_better) == (1, 1)


def test_mcnemar_is_fair_to_runs_of_unequal_numbers_of_seeds():
    # One seed with an accuracy of 90 % is "all correct" far more often than five such seeds.
    rng = np.random.default_rng(8)
    labels = "a" * 2000
    one, *five = ("".join(rng.choice(["a", "b"], 2000, p=[0.9, 0.1])) for _ in range(6))
    found = mcnemar(aligned(labels, one), aligned(labels, *five))
    assert found.seeds == 1
    assert found.p > 0.01
    assert found == mcnemar(aligned(labels, one), aligned(labels, five[0]))


# Errors and notes ---------------------------------------------------------------------------------


def test_different_utterances_and_labels_are_counted(runs, tmp_path):
    fewer = write_run(tmp_path / "fewer", {0: LABELS[:-3]}, LABELS[:-3])
    with pytest.raises(UsageError, match=r"3 are in one run only, and 0 have different"):
        compare(runs["weak"], fewer)
    labels = LABELS.copy()
    labels[:5] = np.roll(CLASSES, 1)[[0, 1, 2, 3, 0]]
    other = write_run(tmp_path / "other", {0: LABELS}, labels)
    with pytest.raises(UsageError, match=r"0 are in one .* 5 have different labels; .* protocol"):
        compare(other, runs["weak"])


def test_different_folds_have_a_note(runs, tmp_path):
    other = write_run(tmp_path / "other", {0: predictions(np.random.default_rng(1), 0.5)}, folds=3)
    (note,) = compare(runs["weak"], other, resamples=100).notes
    assert "folds differ" in note


def test_different_training_parts_have_a_note_but_names_of_folds_do_not_matter(tmp_path):
    rng = np.random.default_rng(1)
    first, second = (write_run(tmp_path / name, {0: predictions(rng, 0.5)}) for name in "ab")
    parts = [list(part.ids) for part in read_predictions(first).parts]
    write_folds(first, parts)
    write_folds(second, parts[::-1])
    assert compare(first, second, resamples=100).notes == ()
    content = json.loads((second / "folds.json").read_text(encoding="utf-8"))
    content["folds"][0]["validation"].append(content["folds"][0]["train"].pop())
    (second / "folds.json").write_text(json.dumps(content), encoding="utf-8")
    (note,) = compare(first, second, resamples=100).notes
    assert "folds differ" in note


def test_seeds_with_different_utterances_cannot_be_pooled(runs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    text = (runs["weak3"] / "predictions.csv").read_text(encoding="utf-8")
    (run / "predictions.csv").write_text(text.rstrip().rpartition("\n")[0], encoding="utf-8")
    with pytest.raises(PipelineError, match="do not test the same utterances once"):
        compare(run, runs["weak"])


# The command line ---------------------------------------------------------------------------------


def test_the_command_prints_a_table(call: Call, runs):
    code, out, err = call("compare", runs["weak3"], runs["strong5"])
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "two runs on the same 240 test utterances"
    assert f"first:  {runs['weak3']}, seeds 0, 1, 2" in out
    assert f"second: {runs['strong5']}, seeds 1, 3, 4, 7, 10" in out
    found = compare(runs["weak3"], runs["strong5"])
    for title, metric in (("WA", "wa"), ("weighted F1", "weighted_f1")):
        (line,) = [line for line in lines if line.startswith(f"  {title} ")]
        assert f"{100 * found.metrics[metric].first:.1f} [" in line
        assert f"{100 * found.metrics[metric].difference:+.1f} [+" in line
    assert "2000 resamples" in out
    assert "3 seeds per run" in out
    assert max(len(line) for line in lines if str(runs["weak3"]) not in line) < 120


def test_the_command_as_json(call: Call, runs):
    code, out, err = call(
        "compare", runs["weak"], runs["strong5"], "--metric", "ua", "--resamples", 300, "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result["metrics"]) == ["ua"]
    assert result["metrics"]["ua"]["p"] == 2 / 301
    assert result["seeds"] == [[0], [1, 3, 4, 7, 10]]
    assert result["first"] == str(runs["weak"])
    assert result["mcnemar"]["seeds"] == 1
    assert result == json.loads(
        json.dumps(compare(runs["weak"], runs["strong5"], "ua", resamples=300).as_json())
    )


def test_comparison_of_trained_runs(call: Call, tmp_path):
    cache = made_cache(tmp_path / "cache", official())
    trained = [
        train_head(made(cache, tmp_path / name, f"epochs={epochs}", seeds=seeds))
        for name, epochs, seeds in (("short", 1, (0,)), ("long", 3, (0, 1)))
    ]
    code, out, err = call("compare", tmp_path / "short", tmp_path / "long", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["utterances"] == 8
    assert result["notes"] == []
    for metric in METRICS:
        for side, run in zip(("first", "second"), trained, strict=True):
            pooled = run.metrics["aggregate"][metric]["pooled"]
            assert result["metrics"][metric][side] == pooled


def test_errors_of_the_command_are_one_sentence(call: Call, runs, tmp_path):
    run = runs["weak"]
    for arguments, word in (
        ((run, tmp_path), "contains no predictions.csv"),
        ((run, run, "--metric", "uaa"), "did you mean 'ua'?"),
        ((run, run, "--resamples", 5), "give 100 or more"),
    ):
        code, out, err = call("compare", *arguments)
        assert (code, out) == (2, "")
        assert is_one_sentence(err)
        assert word in err
    (tmp_path / "predictions.csv").write_text("id\n", encoding="utf-8")
    code, _, err = call("compare", run, tmp_path)
    assert code == 1
    assert is_one_sentence(err)


def test_the_example_in_the_help_uses_options_that_exist(call: Call):
    code, out, _ = call("compare", "--help")
    assert code == 0
    help_text, example = " ".join(out.split()).split("Example: mser compare ")
    assert all(word in help_text for word in example.split() if word.startswith("--"))
