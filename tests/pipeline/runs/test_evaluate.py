"""Evaluating a finished run on its test parts again, also with a modality missing."""

import json
import math
import shutil
from pathlib import Path

import pytest

from mser.heads import HEADS
from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.evaluation.metrics import aggregate
from mser.pipeline.evaluation.predictions import read_predictions
from mser.pipeline.evaluation.registry import METRICS
from mser.pipeline.runs import evaluate
from mser.pipeline.train import Run, train_head
from mser.tests.conftest import Call
from mser.tests.support.train_runs import made, made_both, made_cache, official, rows, tiny

# Each modality shows one half of the label: angry or happy against neutral or sad, and
# angry or neutral against happy or sad.
HALVES = {"speech": (0, 0, 1, 1), "text": (0, 1, 0, 1)}
LEARNT = ("epochs=6", "learning_rate=0.01", "batch_size=16")


def utterances(test: int = 32) -> list[Utterance]:
    return official(train=48, validation=8, test=test)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities; each shows one half of the label. Do not change them."""
    return made_both(tmp_path_factory.mktemp("halves") / "cache", utterances(), shown=HALVES)


@pytest.fixture(scope="module", params=sorted(HEADS))
def run(
    request: pytest.FixtureRequest, halves: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A finished run; that of the linear head has two seeds."""
    out = tmp_path_factory.mktemp("evaluated") / request.param
    asked = (*LEARNT, "learning_rate=0.015")
    seeds = (0, 1) if request.param == "linear" else (0,)
    return train_head(tiny(request.param, halves, out, *asked, seeds=seeds))


def wa(facts: dict[str, dict[str, dict[str, float]]]) -> float:
    return facts["aggregate"]["wa"]["mean"]


def test_a_head_is_better_with_both_halves_than_with_one(run: Run) -> None:
    again = evaluate(run.path, device="cpu")
    assert again.facts["aggregate"] == run.metrics["aggregate"]
    assert again.facts["as_trained"] == run.metrics["aggregate"]
    assert wa(again.facts) > 0.7  # one half alone would give 0.5 at best
    without, one_seed = {}, len(run.metrics["folds"]) == 1
    for missing in ("speech", "text"):
        found = evaluate(run.path, [missing], device="cpu")
        assert found.path == run.path / f"without-{missing}.json"
        assert json.loads(found.path.read_text()) == found.facts
        for metric in METRICS:
            scored = found.facts["aggregate"][metric]
            assert all(math.isfinite(scored[name]) for name in ("mean", "pooled"))
            # One training has no deviation.
            assert scored["std"] is None if one_seed else math.isfinite(scored["std"])
        without[missing] = found.facts["aggregate"]
        assert wa(found.facts) < wa(again.facts) - 0.1
    assert without["speech"] != without["text"]
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics == run.metrics  # the run itself is not changed


@pytest.mark.parametrize("head", ["query", "hbf"])
def test_a_head_trained_with_masking_predicts_from_either_modality(
    head: str, tmp_path: Path, label_in_both: Path
) -> None:
    asked = (*LEARNT, "head.masking=0.4")
    done = train_head(tiny(head, label_in_both, tmp_path / "run", *asked))
    assert wa(done.metrics) > 0.9
    for missing in ("speech", "text"):
        assert wa(evaluate(done.path, [missing], device="cpu").facts) > 0.6  # chance is 0.25


@pytest.fixture(scope="module")
def label_in_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities; each shows the label. Do not change them."""
    corpus = official(train=64, validation=8, test=32)
    return made_both(tmp_path_factory.mktemp("twice") / "cache", corpus)


@pytest.fixture(scope="module")
def linear(halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run. Do not change its folder: copy it."""
    return train_head(tiny("linear", halves, tmp_path_factory.mktemp("linear") / "run"))


def test_through_the_command_line(call: Call, linear: Run, tmp_path: Path) -> None:
    run = shutil.copytree(linear.path, tmp_path / "run")
    code, out, err = call("evaluate", run, "--missing", "text", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "linear on made-up, without text" in out
    for name in ("as trained", "without text", "chance"):
        assert any(line.strip().startswith(name) for line in out.splitlines())
    assert "bootstrap interval over 32 dialogues of the test part, without" in out
    code, out, err = call("evaluate", run, "--groups", "utterance", "--json", "--device", "cpu")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["intervals"] == {"by": "utterance", "number": 32}
    alone = aggregate(read_predictions(run).parts)
    assert facts["aggregate"] == facts["as_trained"] == alone
    assert alone != linear.metrics["aggregate"]
    code, out, err = call("evaluate", run, "--json", "--device", "cpu")
    assert (code, err) == (0, "")
    assert json.loads(out)["aggregate"] == linear.metrics["aggregate"]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("texts", "did you mean 'text'"),
        ("vision", "unknown modality of this run 'vision'"),
        ("speech,text", "has no modality other than speech, text: leave one of them"),
    ],
)
def test_a_modality_that_cannot_be_missing_is_one_sentence(
    call: Call, linear: Run, missing: str, says: str
) -> None:
    code, out, err = call("evaluate", linear.path, "--missing", missing)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_the_only_modality_cannot_be_missing(tmp_path: Path) -> None:
    done = train_head(made(made_cache(tmp_path / "cache", official()), tmp_path / "run"))
    with pytest.raises(UsageError, match="leave one of them"):
        evaluate(done.path, ["speech"])


def test_a_folder_that_is_not_a_finished_run_is_one_sentence(linear: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the folder of a run"):
        evaluate(tmp_path)
    run = shutil.copytree(linear.path, tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(UsageError, match="give the folder of a finished run"):
        evaluate(run)


@pytest.mark.parametrize("damage", [None, b"", b"no tensors at all"])
def test_a_damaged_checkpoint_is_one_sentence(
    linear: Run, tmp_path: Path, damage: bytes | None
) -> None:
    run = shutil.copytree(linear.path, tmp_path / "run")
    (file,) = (run / "checkpoints").iterdir()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(PipelineError, match="is missing or damaged") as raised:
        evaluate(run, device="cpu")
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_cache_may_have_moved_or_changed(linear: Run, halves: Path, tmp_path: Path) -> None:
    run = shutil.copytree(linear.path, tmp_path / "run")
    moved = shutil.copytree(halves, tmp_path / "elsewhere")
    found = evaluate(run, cache=str(moved), device="cpu")
    assert found.facts["aggregate"] == linear.metrics["aggregate"]
    assert found.facts["notes"] == linear.metrics["notes"]
    other = made_both(tmp_path / "other", utterances())
    found = evaluate(run, cache=str(other), device="cpu")
    assert "the features are not those that the run was trained on" in found.facts["notes"]
    fewer = made_both(tmp_path / "fewer", utterances(test=24))
    with pytest.raises(
        UsageError, match=r"no longer holds 8 of the run's utterances, such as 'test/u24'"
    ):
        evaluate(run, cache=str(fewer), device="cpu")
    with pytest.raises(UsageError, match="if the cache has moved, give its folder or URL with --"):
        evaluate(run, cache=str(tmp_path / "empty"), device="cpu")
    assert len(rows(linear)) == 32
