"""Comparison of two runs: differences, intervals, p values, notes and errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.evaluation.bootstrap import (
    bootstrap,
    interval,
    metric_differences,
    resampling_units,
)
from mser.pipeline.evaluation.compare import compare
from mser.pipeline.evaluation.metrics import Predictions, aggregate
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
    assert found.mcnemar is not None
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
    assert found.mcnemar is not None
    assert found.mcnemar.second_better > 2 * found.mcnemar.first_better
    assert found.mcnemar.p < 1e-4


def test_runs_of_equal_quality_do_not_differ_significantly(tmp_path):
    rng = np.random.default_rng(11)
    first, second = (write_run(tmp_path / name, {0: predictions(rng, 0.5)}) for name in "ab")
    found = compare(first, second)
    assert all(row.p > 0.05 for row in found.metrics.values())
    assert found.mcnemar is not None
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
    assert test is not None
    assert swapped_test is not None
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


# Groups -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs in 24 dialogues; the second is all correct on half of the dialogues."""
    rng = np.random.default_rng(2)
    root = tmp_path_factory.mktemp("grouped")
    better = np.repeat(rng.random(24) < 0.5, 10)
    weak = predictions(rng, 0.3)
    dialogues = [f"dia{n // 10}" for n in range(240)]
    return (
        write_run(root / "first", {0: weak}, dialogues=dialogues),
        write_run(root / "second", {0: np.where(better, LABELS, weak)}, dialogues=dialogues),
    )


def test_whole_dialogues_are_drawn_by_default(grouped):
    alone = compare(grouped[0], grouped[1], metric="wa", groups="utterance")
    whole = compare(grouped[0], grouped[1], metric="wa")
    assert (alone.groups, whole.groups) == (
        {"by": "utterance", "number": 240},
        {"by": "dialogue", "number": 24},
    )
    assert whole == compare(grouped[0], grouped[1], metric="wa", groups="dialogue")
    assert whole.metrics["wa"].difference == alone.metrics["wa"].difference
    (low, high), (wide_low, wide_high) = (
        found.metrics["wa"].difference_ci95 for found in (alone, whole)
    )
    assert wide_high - wide_low > 1.5 * (high - low)


def test_the_interval_over_dialogues_equals_that_of_a_bootstrap_by_indices(grouped):
    correct = []
    for run in grouped:
        parts = read_predictions(run).parts
        hits = {
            id: label == predicted
            for part in parts
            for id, label, predicted in zip(part.ids, part.labels, part.predicted, strict=True)
        }
        correct.append(np.array([hits[f"d{n % 7}, u{n}"] for n in range(240)]).reshape(24, 10))
    by_dialogue = (correct[1].astype(float) - correct[0]).mean(axis=1)
    drawn = np.random.default_rng(9).integers(0, 24, size=(4000, 24))
    expected = np.quantile(by_dialogue[drawn].mean(axis=1), [0.025, 0.975])
    found = (
        compare(grouped[0], grouped[1], metric="wa", resamples=4000).metrics["wa"].difference_ci95
    )
    assert found == pytest.approx(expected, abs=0.02)


def test_older_runs_are_compared_by_utterance(runs, grouped, tmp_path):
    assert compare(runs["weak"], runs["strong"]).drawn() == "240 utterances"
    message = r"weak' does not hold the dialogue of its utterances.*--groups utterance"
    with pytest.raises(UsageError, match=message):
        compare(runs["weak"], runs["strong"], groups="dialogue")
    older = write_run(tmp_path / "older", {0: LABELS})
    assert compare(older, grouped[0], resamples=100).drawn() == "24 dialogues"


def test_groups_that_cannot_be_drawn_are_refused(grouped):
    for groups, message in (
        ("speaker", "no test utterance has a speaker: choose other groups than speaker"),
        ("session", "all test utterances have one session: choose other groups than session"),
        ("dialog", "unknown groups 'dialog': did you mean 'dialogue'"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(*grouped, groups=groups)


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
        assert line.endswith(" < 0.001")
    assert "by a paired bootstrap of 240 utterances, 2000 resamples" in out
    assert "3 seeds per run" in out
    assert max(len(line) for line in lines if str(runs["weak3"]) not in line) < 120


def test_full_scores_do_not_touch_each_other(call: Call, tmp_path):
    rng = np.random.default_rng(0)
    first, second = (write_run(tmp_path / name, {0: predictions(rng, 1.0)}) for name in "ab")
    line = call("compare", first, second, "--metric", "wa", "--resamples", 100)[1].splitlines()[4]
    assert line.split() == [
        *("WA", "100.0", "[100.0,", "100.0]", "100.0", "[100.0,", "100.0]"),
        *("+0.0", "[+0.0,", "+0.0]", "1"),
    ]


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


def test_the_command_draws_the_groups_that_are_asked_for(call: Call, grouped):
    code, out, _ = call("compare", *grouped, "--resamples", 100)
    assert code == 0
    assert "by a paired bootstrap of 24 dialogues, 100 resamples" in out
    code, out, _ = call("compare", *grouped, "--resamples", 100, "--groups", "utterance", "--json")
    assert code == 0
    assert json.loads(out)["groups"] == {"by": "utterance", "number": 240}


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
