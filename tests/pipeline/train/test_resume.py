"""An interrupted training continues as if it had not been interrupted."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mser.heads import HEADS
from mser.pipeline.compute import backend as backend_module
from mser.pipeline.errors import PipelineError
from mser.pipeline.train import TrainSettings, runner, train_head
from mser.pipeline.train.jobs import OnEpoch, TrainingJob, TrainingReport, run_training
from mser.tests.support.fork_server import Fork, fork_server
from mser.tests.support.train_runs import (
    CONTENT,
    log,
    made_both,
    make_utterance,
    official,
    results,
    timeless,
    tiny,
)

# Everything on that has a state or draws random numbers.
ALL_ON = (
    *("accumulate=2", "warmup=0.3", "schedule=cosine", "clip=1.0", "learning_rate=0.01"),
    *("class_weights=balanced", "head.dropout=0.2", "save_every=0"),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities. Do not change them."""
    corpus = official(train=20, validation=6, test=4)
    return made_both(tmp_path_factory.mktemp("resume") / "cache", corpus)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of a corpus in four sessions, so that there are four folds. Do not change them."""
    corpus = [make_utterance(f"s{n % 4}-{n}", session=f"s{n % 4}") for n in range(24)]
    root = tmp_path_factory.mktemp("sessions") / "cache"
    return made_both(root, corpus, protocol="leave-one-session-out")


def jobs_of(settings: TrainSettings) -> list[TrainingJob]:
    return runner.plan_run(settings).jobs()


def interrupted(job: TrainingJob, epoch: int) -> None:
    def tick(over: int) -> None:
        if over == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, tick)
    assert not job.done


@pytest.mark.parametrize("head", sorted(HEADS))
def test_interrupted_in_any_epoch_it_gives_the_same_bytes(
    head: str, cache: Path, tmp_path: Path
) -> None:
    whole = train_head(tiny(head, cache, tmp_path / "whole", *ALL_ON, "epochs=4"))
    settings = tiny(head, cache, tmp_path / "run", *ALL_ON, "epochs=4")
    (job,) = jobs_of(settings)
    interrupted(job, 1)
    torch.rand(7)  # numbers drawn in between have no influence
    # The second epoch is logged but not saved, so it is trained again.
    interrupted(replace(job, settings=replace(settings, save_every=1e9)), 2)
    interrupted(job, 3)
    interrupted(job, 4)
    resumed = train_head(settings)
    assert results(resumed) == results(whole)
    assert timeless(resumed) == timeless(whole)
    assert [line["epoch"] for line in log(resumed)] == [1, 2, 3, 4]
    assert {path.name for path in resumed.path.iterdir()} == CONTENT


def test_the_patience_is_part_of_the_saved_state(cache: Path, tmp_path: Path) -> None:
    asked = ("epochs=40", "patience=2", "learning_rate=0.3", "save_every=0")
    whole = train_head(tiny("linear", cache, tmp_path / "whole", *asked))
    last = len(log(whole))
    assert last < 40
    settings = tiny("linear", cache, tmp_path / "run", *asked)
    (job,) = jobs_of(settings)
    interrupted(job, last - 1)
    assert results(train_head(settings)) == results(whole)


def test_each_epoch_is_reported_once(cache: Path, tmp_path: Path) -> None:
    (job,) = jobs_of(tiny("linear", cache, tmp_path / "run", "save_every=0"))
    interrupted(job, 2)
    reported: list[int] = []
    run_training(job, reported.append)
    assert reported == [1, 2, 3]


def test_the_state_is_saved_no_more_often_than_asked(cache: Path, tmp_path: Path) -> None:
    for seconds, saved in (("0", [True] * 3), ("1e9", [False] * 3)):
        run = tmp_path / seconds
        (job,) = jobs_of(tiny("linear", cache, run, f"save_every={seconds}"))
        assert saved_after_epochs(job) == saved


def saved_after_epochs(job: TrainingJob) -> list[bool]:
    found: list[bool] = []
    run_training(job, lambda epoch: found.append(is_saved(job.run)))
    return found


def is_saved(run: Path) -> bool:
    return any((run / "trainings").glob("*.state.safetensors"))


@pytest.mark.parametrize("damage", [b"", b"no tensors", b"\xff" * 9])
def test_a_damaged_state_is_one_sentence(cache: Path, tmp_path: Path, damage: bytes) -> None:
    settings = tiny("linear", cache, tmp_path / "run", "save_every=0")
    (job,) = jobs_of(settings)
    interrupted(job, 1)
    (state,) = (tmp_path / "run" / "trainings").glob("*.state.safetensors")
    state.write_bytes(damage)
    with pytest.raises(
        PipelineError, match="is damaged or was written by another version"
    ) as raised:
        train_head(settings)
    assert str(state) in str(raised.value)
    assert "\n" not in str(raised.value)
    state.unlink()  # as the sentence says
    assert results(train_head(settings)) == results(
        train_head(tiny("linear", cache, tmp_path / "whole"))
    )


def test_the_state_of_another_head_is_one_sentence(cache: Path, tmp_path: Path) -> None:
    (job,) = jobs_of(tiny("linear", cache, tmp_path / "run", "save_every=0"))
    (other,) = jobs_of(tiny("hbf", cache, tmp_path / "other", "save_every=0"))
    interrupted(job, 1)
    interrupted(other, 1)
    (state,) = (tmp_path / "other" / "trainings").glob("*.state.safetensors")
    state.replace(tmp_path / "run" / "trainings" / state.name)
    with pytest.raises(PipelineError, match="is damaged or was written by another version"):
        run_training(job)


def test_a_folder_without_all_its_files_is_continued(cache: Path, tmp_path: Path) -> None:
    """A process may be killed, or a second one may start, before the folder is complete."""
    whole = train_head(tiny("linear", cache, tmp_path / "whole"))
    for kept in ((), ("config.toml",), ("config.toml", "folds.json")):
        out = tmp_path / f"run{len(kept)}"
        out.mkdir()
        (out / ".tmp-0123-config.toml").write_text("head =")
        for name in kept:
            (out / name).write_bytes((whole.path / name).read_bytes())
        assert results(train_head(tiny("linear", cache, out))) == results(whole)


def test_a_finished_run_is_only_read(cache: Path, tmp_path: Path) -> None:
    settings = tiny("linear", cache, tmp_path / "run")
    first = train_head(settings)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    assert train_head(settings) == first
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


def test_a_job_that_another_process_finished_is_not_done_again(cache: Path, tmp_path: Path) -> None:
    settings = tiny("linear", cache, tmp_path / "run")
    (job,) = jobs_of(settings)
    train_head(settings)  # as another process might do while this one waits
    reported: list[int] = []
    assert not run_training(job, reported.append).busy
    assert reported == []
    assert {path.name for path in job.run.iterdir()} == CONTENT


def test_features_that_changed_during_a_run_are_refused(cache: Path, tmp_path: Path) -> None:
    (job,) = jobs_of(tiny("linear", cache, tmp_path / "run"))
    with pytest.raises(PipelineError, match=r"made-up in .* changed while the run was going on"):
        run_training(replace(job, digest="another"))


def test_threads_of_one_worker_do_not_disturb_each_other(cache: Path, tmp_path: Path) -> None:
    """The workers of a scheduler may have several threads; torch has one random state for them."""
    alone, shared = (tiny("query", cache, tmp_path / n, *ALL_ON, seeds=(0, 1)) for n in "ab")
    with ThreadPoolExecutor(2) as pool:
        assert not any(report.busy for report in pool.map(run_training, jobs_of(shared)))
    assert results(train_head(shared)) == results(train_head(alone))


# Several processes --------------------------------------------------------------------------------


def start(call: str, head: str, cache: Path, out: Path, *more: str) -> Fork:
    code = f"""
import os, signal, time
from pathlib import Path
from mser.pipeline.train import jobs, train_head, runner
from mser.tests.support.train_runs import tiny
run_training = runner.run_training
settings = tiny({head!r}, Path({str(cache)!r}), Path({str(out)!r}), *{more!r}, seeds=(0, 1))
{call}
"""
    return fork_server().start(code)


def test_a_killed_run_continues_and_leaves_no_temporary_files(cache: Path, tmp_path: Path) -> None:
    killed = """
def tick(epoch):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
runner.run_training = lambda job, _: run_training(job, tick if job.seed else (lambda epoch: None))
train_head(settings)
"""
    run = tmp_path / "run"
    with start(killed, "query", cache, run, *ALL_ON) as running:
        whole = train_head(tiny("query", cache, tmp_path / "whole", *ALL_ON, seeds=(0, 1)))
        assert running.wait(timeout=300) == -signal.SIGKILL
    assert (run / "trainings" / "official-seed0.result.safetensors").exists()
    assert is_saved(run)
    abandoned = [run / ".tmp-1-metrics.json", run / "checkpoints" / ".tmp-1-official.safetensors"]
    for path in abandoned:
        path.write_text("half")
        os.utime(path, (0, 0))
    (run / "scores.0000.json").write_text("{")  # a lease that its holder did not finish writing
    resumed = train_head(tiny("query", cache, run, *ALL_ON, seeds=(0, 1)))
    assert results(resumed) == results(whole)
    assert timeless(resumed) == timeless(whole)
    assert [(line["seed"], line["epoch"]) for line in log(resumed)] == [
        (seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    assert {path.name for path in run.iterdir()} == CONTENT
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "official-seed0.safetensors",
        "official-seed1.safetensors",
    }


def test_two_processes_share_the_trainings_of_a_run(
    sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other process starts first, and holds its first training until this one has done three.
    other = """
def run_and_wait(job, tick):
    def wait(epoch):
        while len(list(trainings.glob("*.result.safetensors"))) < 3:
            time.sleep(0.01)
    report = run_training(job, wait)
    if not report.busy:
        print(job.name)
    return report
trainings = settings.out / "trainings"
runner.run_training, runner._PAUSE = run_and_wait, 0.05
train_head(settings)
"""
    run = tmp_path / "run"
    mine: list[str] = []

    def run_here(job: TrainingJob, tick: OnEpoch) -> TrainingReport:
        report = run_training(job, tick)
        if not report.busy:
            mine.append(job.name)
        return report

    monkeypatch.setattr(runner, "_PAUSE", 0.05)
    with start(other, "query", sessions, run) as running:
        alone = train_head(tiny("query", sessions, tmp_path / "alone", seeds=(0, 1)))
        while running.poll() is None and not list(run.glob("trainings/*.0000.json")):
            time.sleep(0.01)
        monkeypatch.setattr(runner, "run_training", run_here)
        shared = train_head(tiny("query", sessions, run, seeds=(0, 1)))
        out, _ = running.communicate(timeout=300)
    assert running.returncode == 0
    theirs = out.split()
    assert theirs
    assert len(mine) >= 3
    names = {f"s{fold}-seed{seed}" for fold in range(4) for seed in (0, 1)}
    assert set(mine) | set(theirs) == names
    assert results(shared) == results(alone)
    assert {path.name for path in run.iterdir()} == CONTENT


@pytest.mark.usefixtures("quick_workers")
def test_workers_give_the_same_bytes_as_this_process(
    sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that each worker has one core, as this process.
    monkeypatch.setattr(backend_module, "cores", lambda: 2)
    here = train_head(tiny("query", sessions, tmp_path / "here", *ALL_ON))
    there = train_head(tiny("query", sessions, tmp_path / "there", *ALL_ON, workers=2))
    assert results(there) == results(here)
    assert timeless(there) == timeless(here)
