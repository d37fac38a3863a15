"""What a person sees of the trainings while they run."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.train import TrainSettings
from mser.pipeline.train import runner as module
from mser.pipeline.train.jobs import TrainingJob, run_training
from mser.pipeline.train.shown_trainings import ShownTrainings
from mser.tests.support.terminal import Terminal
from mser.tests.support.train_runs import made, made_cache, official


class Shown:
    """Keeps what is shown, in place of a bar."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.kept: list[str] = []

    def show(self, _: float, text: str) -> None:
        self.texts.append(text)

    def keep(self, line: str) -> None:
        self.kept.append(line)


class Trainings:
    """Three trainings whose logs and clock the test writes: 2 s an epoch, patience 3."""

    def __init__(self, folder: Path, **logged: list[float]) -> None:
        settings = TrainSettings("linear", "x", folder, patience=3, epochs=50, monitor="ua")
        self.folder, self.now, self.bar = folder / "trainings", 1000.0, Shown()
        self.folder.mkdir()
        self.jobs = {name: TrainingJob(settings, "", folder, name, 0) for name in "abc"}
        for name, scores in logged.items():
            self.log(name, scores)
        bar: Any = self.bar
        self.shown = ShownTrainings([*self.jobs.values()], bar, lambda: self.now)

    def log(self, name: str, scores: list[float]) -> None:
        lines = [
            {"train": {"loss": 1.5}, "validation": {"ua": score, "loss": 2.0}, "seconds": 2.0}
            for score in scores
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (self.folder / f"{self.jobs[name].name}.jsonl").write_text(text)

    def after(self, seconds: float, **logged: list[float]) -> float | None:
        """Let time pass, write logs, look, and return the seconds left."""
        self.now += seconds
        for name, scores in logged.items():
            self.log(name, scores)
        self.shown.look()
        return self.shown.seconds_left


def test_the_time_left_is_that_of_early_stopping_and_not_of_the_maximum(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path)
    assert trainings.shown.seconds_left is None
    # 3 epochs, the second the best: it would stop after 2 + 3, and so would the two that wait.
    left = trainings.after(60.0, a=[0.2, 0.6, 0.4])  # 54 s of it before the first epoch
    assert left == pytest.approx((3 * 5 - 3) * 2)
    assert trainings.bar.texts[-1] == (
        "24 s left, 0 of 3 done, a seed 0 epoch 3: loss 1.500, ua 0.400, best 0.600"
    )
    # It improved and had 8 epochs: so many are expected of the others now.
    trainings.after(10.0, a=[0.2, 0.6, 0.4, 0.5, 0.7, 0.1, 0.1, 0.1])
    trainings.shown.finished(trainings.jobs["a"])
    assert trainings.bar.kept == ["fold a, seed 0: ua 0.700 on validation in epoch 5 of 8"]
    assert trainings.after(2.0, b=[0.3]) == pytest.approx((7 + 8) * 18 / 9)
    assert "1 of 3 done, b seed 0 epoch 1" in trainings.bar.texts[-1]


def test_epochs_of_an_earlier_command_do_not_count_as_speed(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path, a=[0.5, 0.4, 0.3])
    assert trainings.shown.seconds_left is None
    # The state that was saved is one of epoch 2: the third is trained again.
    assert trainings.after(30.0, a=[0.5, 0.4]) is None
    assert trainings.after(4.0, a=[0.5, 0.4, 0.3]) == pytest.approx((3 * 4 - 3) * 2)


def test_a_line_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path)
    path = trainings.folder / f"{trainings.jobs['a'].name}.jsonl"
    path.write_text('{"train": {"lo')
    assert trainings.after(1.0) is None
    assert trainings.after(2.0, a=[0.1]) is not None


def test_the_epochs_of_a_training_are_shown_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    cache = made_cache(tmp_path / "cache", official())
    module.train_head(made(cache, tmp_path / "run", "epochs=3", "patience=3", seeds=(0, 1)))
    lines = [line for line in err.getvalue().split("\n") if " on validation in epoch " in line]
    pattern = re.compile("fold .+, seed ([01]): weighted_f1 [0-9.]+ ")
    assert [match[1] for line in lines if (match := pattern.search(line))] == ["0", "1"]
    assert "1 of 2 done" in err.getvalue()


def test_the_log_of_a_run_grows_with_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    log = tmp_path / "run" / "log.jsonl"

    def reading(job: TrainingJob, _: Any) -> Any:
        return run_training(job, lambda epoch: seen.append(len(log.read_text().splitlines())))

    monkeypatch.setattr(module, "run_training", reading)
    cache = made_cache(tmp_path / "cache", official())
    module.train_head(made(cache, tmp_path / "run", "epochs=2", seeds=(0, 1)))
    assert seen == [1, 2, 3, 4]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["seed"], line["epoch"]) for line in lines] == [(0, 1), (0, 2), (1, 1), (1, 2)]
