"""Training some folds of a protocol, and the choice of the validation part in a run."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import UsageError
from mser.pipeline.evaluation.predictions import read_predictions
from mser.pipeline.runs import evaluate
from mser.pipeline.runs.report import report
from mser.pipeline.train import Run, TrainSettings, train_head
from mser.tests.conftest import Call
from mser.tests.support.train_runs import (
    CONTENT,
    made,
    made_cache,
    make_utterance,
    read_json,
    results,
)

PROTOCOL = "leave-one-session-out"


def corpus() -> list[Utterance]:
    """Four sessions of two dialogues, with two speakers each."""
    return [
        make_utterance(
            f"s{session}_{n:02}",
            session=f"s{session}",
            dialogue=f"s{session}_d{n % 2}",
            speaker=f"s{session}_{'fm'[n // 2 % 2]}",
        )
        for session in range(1, 5)
        for n in range(12)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the corpus. Do not change them."""
    return made_cache(tmp_path_factory.mktemp("folds") / "cache", corpus(), protocol=PROTOCOL)


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all folds and two seeds. Do not change its folder."""
    return train_head(made(cache, tmp_path_factory.mktemp("whole") / "run", seeds=(0, 1)))


def trained(run: Run) -> list[str]:
    return list(dict.fromkeys(fold["fold"] for fold in run.metrics["folds"]))


def some(cache: Path, out: Path, *folds: str) -> Run:
    return train_head(made(cache, out, seeds=(0, 1), folds=folds))


# Folds --------------------------------------------------------------------------------------------


def test_only_the_folds_that_are_asked_for_are_trained(
    cache: Path, whole: Run, tmp_path: Path
) -> None:
    run = some(cache, tmp_path / "run", "s2", "s4", "s2")
    assert trained(run) == ["s2", "s4"]
    assert run.metrics["not_trained"] == ["s1", "s3"]
    assert run.metrics["test_utterances"] == 24
    assert ": 2 of 4 folds x 2 seeds, 24 test utterances" in str(run)
    # A fold has the same scores as in a run of all folds.
    assert run.metrics["folds"] == [f for f in whole.metrics["folds"] if f["fold"] in ("s2", "s4")]
    assert {part.fold for part in read_predictions(run.path).parts} == {"s2", "s4"}
    assert len(list((run.path / "checkpoints").iterdir())) == 4


def test_a_run_continues_with_more_folds(cache: Path, whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    some(cache, out, "s2")
    evaluate(out, device="cpu")
    assert (out / "again.json").exists()
    checkpoint = out / "checkpoints" / "s2-seed0.safetensors"
    before = checkpoint.stat().st_mtime_ns
    assert trained(some(cache, out, "s1")) == ["s1", "s2"]
    assert trained(some(cache, out, "s2")) == ["s1", "s2"]  # is only read
    done = train_head(made(cache, out, seeds=(0, 1)))
    assert checkpoint.stat().st_mtime_ns == before
    assert done.metrics["not_trained"] == []
    assert results(done) == results(whole)
    assert {path.name for path in out.iterdir()} == CONTENT  # again.json was of one fold
    assert trained(some(cache, out, "s3")) == ["s1", "s2", "s3", "s4"]


def test_a_fold_of_which_a_seed_is_not_trained_has_no_scores(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    some(cache, out, "s1", "s2")
    (out / "trainings" / "s1-seed1.result.safetensors").unlink()  # as after an interruption
    run = some(cache, out, "s3")
    assert trained(run) == ["s2", "s3"]
    assert run.metrics["not_trained"] == ["s1", "s4"]


def test_the_environment_has_the_threads_of_all_trainings(cache: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "run", torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        some(cache, out, "s2")
        assert read_json(out / "environment.json")["threads"] == 3
        torch.set_num_threads(2)
        some(cache, out, "s1")
    finally:
        torch.set_num_threads(before)
    assert read_json(out / "environment.json")["threads"] == [2, 3]
    report([out], tmp_path / "page.html")
    assert "2 or 3 threads" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_part_of_a_run_is_evaluated(cache: Path, tmp_path: Path) -> None:
    run = some(cache, tmp_path / "run", "s3")
    found = evaluate(run.path, device="cpu")
    assert found.facts["aggregate"] == run.metrics["aggregate"]
    assert found.facts["intervals"] == {"by": "utterance", "number": 12}


def test_unknown_folds_are_refused_with_the_names_of_the_others(
    call: Call, cache: Path, tmp_path: Path
) -> None:
    typed = ["train-head", "--cache", cache, "--dataset", "made-up", "--head", "linear"]
    typed += ["--modalities", "speech", "--out", tmp_path / "run", "--set", "l2=0.1"]
    code, out, err = call(*typed, "--fold", "s1", "--fold", "s5")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unknown fold of leave-one-session-out 's5'" in err
    assert "known: s1, s2, s3, s4" in err
    assert not (tmp_path / "run").exists()
    code, out, err = call(*typed, "--fold", "s1", "--fold", "s3", "--device", "cpu")
    assert code == 0, err
    assert "2 of 4 folds x 1 seed" in out


# The leakage check --------------------------------------------------------------------------------


def test_the_leakage_check_compares_a_column_of_the_manifest(call: Call, tmp_path: Path) -> None:
    rows = [f"{u.id},{u.label},{u.session},{u.session},s{n % 6}\n" for n, u in enumerate(corpus())]
    (tmp_path / "mine.csv").write_text("id,label,session,dialogue,scenario\n" + "".join(rows))
    (tmp_path / "features").mkdir()
    for utterance in corpus():
        np.save(tmp_path / "features" / f"{utterance.id}.npy", np.ones((2, 3), "float32"))
    typed = ["--cache", "cache", "--dataset", "mine"]
    named = ["--encoder", "e", "--manifest", "mine.csv"]
    code, _, err = call("cache", "import", "features", *typed, *named)
    assert code == 0, err
    train = ["train-head", *typed, "--head", "linear", "--modalities", "speech", "--out", "run"]
    train += ["--set", "l2=0.1", "--device", "cpu"]
    shared = "train and test share 6 values of scenario (in 48 utterances of the test part), 4 of 4"
    for _ in range(2):  # also where the run is finished
        code, _, err = call(*train, "--leakage-column", "scenario")
        assert code == 0
        assert shared in err
    code, _, err = call(*train, "--leakage-column", "scenery")
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown leakage column of mine 'scenery': did you mean 'scenario'" in err


def test_a_manifest_without_further_columns_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made-up in the cache has no columns of its own: add the"):
        train_head(made(cache, tmp_path / "run", leakage_columns=("scenario",)))


# Validation ---------------------------------------------------------------------------------------


def test_the_validation_part_is_cut_as_the_user_chooses(
    call: Call, cache: Path, whole: Run, tmp_path: Path
) -> None:
    run = train_head(made(cache, tmp_path / "run", "epochs=1", validation="session"))
    session_of = {utterance.id: utterance.session for utterance in corpus()}
    for fold in read_json(run.path / "folds.json")["folds"]:
        sessions = [{session_of[id] for id in fold[p]} for p in ("train", "validation", "test")]
        assert [len(part) for part in sessions] == [2, 1, 1]
        assert len(set.union(*sessions)) == 4
    config = tomllib.loads((run.path / "config.toml").read_text())
    assert config["validation"] == run.metrics["validation"] == "session"
    assert f"made-up, {PROTOCOL} with validation by session: 4 folds" in str(run)
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    assert "validation" not in tomllib.loads((whole.path / "config.toml").read_text())

    typed = ["train-head", "--cache", cache, "--dataset", "made-up", "--head", "linear"]
    code, _, err = call(*typed, "--modalities", "speech", "--validation", "sesion")
    assert code == 2
    assert "did you mean 'session'" in err


def test_the_name_of_a_run_has_the_choice_only_if_it_differs_from_the_default(
    cache: Path, tmp_path: Path
) -> None:
    def name(**changes: object) -> str:
        settings = TrainSettings(
            "linear", "made-up", cache, {"speech": None}, runs=tmp_path, device="cpu", l2=0.1
        )
        return train_head(replace(settings, **changes)).path.name  # type: ignore[arg-type]

    usual = name(folds=("s1",))
    assert name(folds=("s2",)) == usual
    assert name(validation="dialogue", folds=("s1",)) == usual
    assert name(validation="speaker", folds=("s1",)) != usual


def test_the_environment_has_the_instructions_that_all_trainings_computed_with(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    for fold, instructions in (("s2", "AVX512"), ("s1", "AVX2")):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: instructions)  # noqa: B023
        some(cache, out, fold)
        if fold == "s2":
            assert read_json(out / "environment.json")["cpu"] == "AVX512"
    assert read_json(out / "environment.json")["cpu"] == ["AVX2", "AVX512"]
