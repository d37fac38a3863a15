"""What ``--track`` writes is what the log of the run holds."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mser.pipeline.train import runner, train_head
from mser.pipeline.train.jobs import run_training
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import log, made, made_cache, official, results


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of one modality. Do not change them."""
    return made_cache(tmp_path_factory.mktemp("tracking") / "cache", official())


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The values of a TensorBoard folder as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    events = EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def expected(lines: list[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    for part in ("train", "validation"):
        for name in lines[0][part]:
            yield f"{part}/{name}", [(line["epoch"], line[part][name]) for line in lines]
    for name in ("steps", "seconds"):
        yield name, [(line["epoch"], line[name]) for line in lines]


def test_tensorboard_has_the_log_of_each_training(cache: Path, tmp_path: Path) -> None:
    run = train_head(made(cache, tmp_path / "run", seeds=(0, 1), track=("tensorboard",)))
    for seed in (0, 1):
        found = curves(tmp_path / "run" / "tensorboard" / f"official-seed{seed}")
        wanted = dict(expected([line for line in log(run) if line["seed"] == seed]))
        assert set(found) == set(wanted)
        for name, points in wanted.items():
            assert [step for step, _ in found[name]] == [step for step, _ in points]
            assert [value for _, value in found[name]] == pytest.approx([v for _, v in points])
    plain = train_head(made(cache, tmp_path / "plain", seeds=(0, 1)))
    assert results(plain) == results(run)
    assert (plain.path / "config.toml").read_text() == (run.path / "config.toml").read_text()


def test_epochs_that_are_trained_again_are_not_shown_twice(cache: Path, tmp_path: Path) -> None:
    settings = made(cache, tmp_path / "run", "save_every=1e9", track=("tensorboard",))
    (job,) = runner.plan_run(settings).jobs()

    def stop(epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, stop)
    train_head(settings)
    found = curves(tmp_path / "run" / "tensorboard" / "official-seed0")
    assert [step for step, _ in found["validation/loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_are_called_once_for_each_training_and_epoch(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the functions of both packages, which are large."""
    calls: list[tuple[str, Any]] = []
    module = ModuleType(name)
    module.init = lambda **options: calls.append(("init", options))  # type: ignore[attr-defined]
    module.log = lambda values, step: calls.append(("log", (step, values)))  # type: ignore[attr-defined]
    module.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    run = train_head(made(cache, tmp_path / "run", seeds=(0, 1), track=(name,)))
    assert [kind for kind, _ in calls] == ["init", *["log"] * 4, "finish"] * 2
    first, second = (options for kind, options in calls if kind == "init")
    assert first["project"] == "mser"
    assert (first["name"], first["group"]) == ("run/official-seed0", "run")
    assert first["config"]["epochs"] == 4
    if name == "wandb":
        assert first["id"] != second["id"]
    logged = [values for kind, values in calls if kind == "log"]
    for (step, values), line in zip(logged, log(run), strict=True):
        assert step == line["epoch"]
        assert values["validation/ua"] == line["validation"]["ua"]


def test_a_tracker_that_is_unknown_or_not_installed_is_one_sentence(
    call: Call, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modality = ("--modalities", "speech", "--track")
    command = (
        "train-head",
        "--head",
        "linear",
        "--dataset",
        "made-up",
        "--cache",
        cache,
        *modality,
    )
    code, out, err = call(*command, "tensorbord")
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert "did you mean 'tensorboard'" in err
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, out, err = call(*command, "wandb")
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert "pip install 'mser[wandb]'" in err
    assert not Path("runs").exists()
