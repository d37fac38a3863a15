"""``mser tune``: a search on validation parts that continues after a kill, and its preset."""

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from mser.heads import HEADS
from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import NotFiniteError
from mser.pipeline.train.jobs import examples_of
from mser.pipeline.train.trainer import Trainer
from mser.pipeline.tune import search, trial, trials
from mser.pipeline.tune.ranges import contains, current_values, ranges_of
from mser.pipeline.tune.trials import TrialRecord, next_trial
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import (
    made_both,
    made_cache,
    make_utterance,
    official,
    read_json,
    tiny,
)

PRESET = """
head = "linear"
dataset = "made-up"
modalities = ["speech"]
layer = "mix"
seeds = [3, 4]
monitor = "{monitor}"
optimizer = "adamw"
epochs = 2
learning_rate = 1e-5

[tune]
learning_rate = {{low = 1e-5, high = 0.5, log = true}}
batch_size = [8, 16]

[tune.head_options]
dropout = {{low = 0.0, high = 0.5}}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of a corpus in three sessions. Do not change them."""
    corpus = [
        make_utterance(f"s{n % 3}-{n}", session=f"s{n % 3}", attributes={"valence": float(n)})
        for n in range(45)
    ]
    root = tmp_path_factory.mktemp("tune") / "cache"
    return made_cache(root, corpus, protocol="leave-one-session-out")


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PRESET.format(monitor="ua"))
    return path


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """The trials without the seconds that they took."""
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_the_search_is_the_same_after_a_kill_and_ends_with_a_preset(
    call: Call, cache: Path, preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_RANDOM", 3)
    command = ("tune", "--preset", preset, "--cache", cache, "--trials", 5)
    code, out, err = call(*command, "--out", "whole", "--json")
    assert code == 0, err
    whole = json.loads(out)
    assert len(trials_of(Path("whole"))) == 5

    # Killed in the last fold of the fourth trial, when nothing of it is written.
    trained, train = [], Trainer.train

    def killed(self: Trainer, *arguments: Any, **options: Any) -> Any:
        trained.append(self.settings)
        if len(trained) == 12:
            raise KeyboardInterrupt
        return train(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "train", killed)
    assert call(*command, "--out", "killed")[0] == 130
    monkeypatch.setattr(Trainer, "train", train)
    assert len(trials_of(Path("killed"))) == 3
    code, out, err = call(*command, "--out", "killed", "--json")
    assert code == 0, err
    assert trials_of(Path("killed")) == trials_of(Path("whole"))
    for name in ("best.toml", "run/metrics.json", "run/predictions.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    # The best is the largest mean over the folds, and the settings do give the score.
    complete = [t for t in trials_of(Path("whole")) if t["state"] == "complete"]
    best = max(complete, key=lambda t: sum(t["folds"].values()) / 3)
    assert whole["best"] == best["number"] != 0
    assert best["score"] == pytest.approx(sum(best["folds"].values()) / 3)
    assert best["score"] > complete[0]["score"]
    again = ("train-head", "--preset", "whole/best.toml", "--cache", cache, "--out", "again")
    code, out, err = call(*again, "--json")
    assert code == 0, err
    metrics = read_json(Path("again/metrics.json"))
    assert metrics == read_json(Path("whole/run/metrics.json"))
    of_seed = {f["fold"]: f["validation"]["ua"] for f in metrics["folds"] if f["seed"] == 3}
    assert best["folds"] == of_seed

    # The test parts are scored: the same number of trials only reads, more are refused.
    before = {path: path.stat().st_mtime_ns for path in Path("whole/run").rglob("*.safetensors")}
    assert call(*command, "--out", "whole")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    code, _, err = call(*command[:-1], 6, "--out", "whole")
    assert code == 2
    assert is_one_sentence(err)
    assert "already scored after 5 trials" in err


def test_no_trial_reads_a_test_utterance(
    call: Call, cache: Path, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: set[str] = set()
    tested: list[bool] = []
    predict, train = Trainer.predict, Trainer.train

    def noted(self: Trainer, head: Any, features: Any, some: list[Utterance], **more: Any) -> Any:
        predicted.update(utterance.id for utterance in some)
        return predict(self, head, features, some, **more)

    def checked(self: Trainer, fold: Any, *arguments: Any, **options: Any) -> Any:
        predicted.clear()
        trained = train(self, fold, *arguments, **options)
        tested.append(bool(predicted & {utterance.id for utterance in fold.test}))
        assert trained.predicted.numel() == 0
        assert predicted <= {utterance.id for utterance in fold.validation}
        return trained

    monkeypatch.setattr(Trainer, "predict", noted)
    monkeypatch.setattr(Trainer, "train", checked)
    command = ("tune", "--preset", preset, "--cache", cache, "--trials", 2, "--no-test")
    code, out, err = call(*command)
    assert code == 0, err
    assert "the test parts were not read" in out
    assert tested == [False] * 6
    assert not Path("studies/mine/run").exists()
    # A linear head that is solved, too.
    own = Path("solved.toml")
    own.write_text('head = "linear"\ndataset = "made-up"\nmodalities = ["speech"]\nl2 = 0.1\n')
    tested.clear()
    code, _, err = call("tune", "--preset", own, *command[3:])
    assert code == 0, err
    assert set(tested) == {False}
    names = {name for t in trials_of(Path("studies/solved")) for name in t["values"]}
    assert names == {"head.pooling", "class_weights"}


def test_a_worse_trial_is_stopped_and_a_failed_one_ends_nothing(
    call: Call, cache: Path, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores by number: seven good ones, then one that is bad in the first fold."""
    begun: list[str] = []

    def scored(plan: Any, settings: Any, fold: Any, report: Any) -> float:
        begun.append(fold.name)
        number = begun.count("s0") - 1
        if number == 2:
            raise NotFiniteError("the loss was not finite")
        return 0.1 if number > 6 else 0.5 + 0.01 * number

    monkeypatch.setattr(trial, "_validated", scored)
    command = ("tune", "--preset", preset, "--cache", cache, "--trials", 8, "--no-test")
    code, out, err = call(*command)
    assert code == 0, err
    records = trials_of(Path("studies/mine"))
    assert records[2]["state"] == "failed"
    assert records[2]["reason"] == "the loss was not finite"
    assert records[-1]["state"] == "pruned"
    assert len(records[-1]["folds"]) == 1
    assert "1 pruned, 1 failed" in out
    assert "the loss was not finite" in Path("studies/mine/summary.md").read_text()


@pytest.mark.parametrize(
    ("target", "monitor", "title"),
    [("emotion", "loss", "loss"), ("valence", "mse", "MSE"), ("valence", "loss", "loss")],
)
def test_a_smaller_loss_or_error_is_better(
    call: Call,
    cache: Path,
    preset: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    monitor: str,
    title: str,
) -> None:
    preset.write_text(f'target = "{target}"\n{PRESET.format(monitor=monitor)}')
    scores = iter([0.9, 0.9, 0.9, 0.4, 0.4, 0.4, 0.7, 0.7, 0.7])
    monkeypatch.setattr(trial, "_validated", lambda *_: next(scores))
    command = ("tune", "--preset", preset, "--cache", cache, "--trials", 3, "--no-test", "--json")
    code, out, err = call(*command)
    assert code == 0, err
    assert json.loads(out)["best"] == 1
    summary = Path("studies/mine/summary.md").read_text()
    assert f"Score: {title} of the best epoch" in summary
    later = [line.split(" | ") for line in summary.splitlines() if line[:3] in ("| 1", "| 2")]
    assert [cells[2] for cells in later] == ["0.4000", "0.4000"]  # the best so far


def test_the_settings_of_a_trial_follow_from_its_number_and_the_trials_before() -> None:
    ranges = {"learning_rate": FloatDistribution(1e-5, 1e-1, log=True)}
    records: list[TrialRecord] = []
    for number in range(14):
        drawn = next_trial(records, ranges, smaller=False, by_fold=True).params
        assert drawn == next_trial(records, ranges, smaller=False, by_fold=True).params
        assert 1e-5 <= drawn["learning_rate"] <= 1e-1
        score = -abs(drawn["learning_rate"] - 1e-3)
        records.append(TrialRecord(number, "complete", drawn, score, {}, [], 0.0))
    assert len({record.values["learning_rate"] for record in records}) == 14
    # Other scores lead to another sixth.
    turned = [
        *records[:9],
        *(
            TrialRecord(n, "complete", r.values, -9.0 * n, {}, [], 0.0)
            for n, r in enumerate(records[9:], 9)
        ),
    ]
    assert (
        next_trial(turned, ranges, smaller=True, by_fold=True).params
        != next_trial(records, ranges, smaller=False, by_fold=True).params
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("[tune]\nlearning_rate = 3", "give a list of values, or a table"),
        ("[tune]\nlearning_rate = [1e-3]", "give two or more different values"),
        ("[tune]\nlearning_rate = {low = 1.0, high = 0.1}", "low must be less than high"),
        ("[tune]\nlearning_rate = {low = 0.0, high = 0.1, log = true}", "learning_rate"),
        ("[tune]\nlearning_rate = {low = 0.01}", "high is missing"),
        (
            "[tune]\nlearning_rate = {low = -1.0, high = 0.1}",
            "learning_rate = -1.0 is not possible",
        ),
        ("[tune]\nlearning_rat = [1e-3, 1e-2]", "did you mean 'learning_rate'"),
        ("[tune]\nmonitor = ['ua', 'wa']", "unknown setting in [tune] 'monitor'"),
        ("[tune]\nseeds = [1, 2]", "unknown setting in [tune] 'seeds'"),
        ("[tune]\nlayer = ['mix', '17']", "layer = '17' is not possible"),
        ("[tune.head_options]\ndropout = [0.1, 2.0]", "head.dropout = 2.0 is not possible"),
        ("[tune.head_options]\nwide = [1, 2]", "unknown linear option 'wide'"),
        ("[tune]\nhead_options = 3", "must be a table"),
    ],
)
def test_an_impossible_range_is_one_sentence(
    call: Call, cache: Path, preset: Path, change: str, says: str
) -> None:
    preset.write_text(PRESET.format(monitor="ua").partition("[tune]")[0] + change)
    code, out, err = call("tune", "--preset", preset, "--cache", cache)
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert says in err
    assert not Path("studies").exists()


def test_another_search_in_the_folder_and_no_trials_are_one_sentence(
    call: Call, cache: Path, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_validated", lambda *_: 0.5)
    command = ("tune", "--preset", preset, "--cache", cache, "--no-test", "--trials")
    assert call(*command, 2)[0] == 0
    for options, says in (
        ((3, "--set", "epochs=3"), "settings epochs = 2 and not 3"),
        ((0,), "--trials 0: give 1 or more"),
        ((2, "--out", "."), "holds something else"),
        ((2, "--out", preset), "is not a folder"),
        ((2, "--set", "layer=mix"), "unknown setting 'layer'"),
    ):
        code, out, err = call(*command, *options)
        assert (code, out) == (2, ""), says
        assert is_one_sentence(err), err
        assert says in err
    (Path("studies/mine/trials.jsonl")).write_text('{"number": 3}\n')
    code, _, err = call(*command, 2)
    assert code == 2
    assert "trials.jsonl' is damaged" in err


def test_a_search_across_corpora_is_one_sentence(call: Call, cache: Path, preset: Path) -> None:
    text = preset.read_text().replace('dataset = "made-up"', 'dataset = "a"\ntest_on = ["b", "c"]')
    preset.write_text(text)
    code, out, err = call("tune", "--preset", preset, "--cache", cache)
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert "tests on b, c: mser tune searches on one corpus" in err
    assert not Path("studies").exists()


def test_the_workers_are_those_of_the_last_training(
    call: Call, cache: Path, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def last(settings: Any) -> Any:
        started.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "_validated", lambda *_: 0.5)
    monkeypatch.setattr(search, "train_head", last)
    typed = ["tune", "--preset", preset, "--cache", cache, "--trials", 1, "--workers", 3]
    assert call(*typed)[0] == 130
    assert [settings.backend.workers for settings in started] == [3]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two modalities. Do not change them."""
    return made_both(tmp_path_factory.mktemp("ranges") / "cache", official())


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_has_ranges_that_hold_its_own_settings(
    head: str, both: Path, tmp_path: Path
) -> None:
    settings = tiny(head, both, tmp_path / "run")
    found = ranges_of("synthetic", {}, settings, examples_of(settings))
    current = current_values(found, settings)
    assert {"learning_rate", "weight_decay", "head.dropout"} <= set(found)
    for name, distribution in found.items():
        assert contains(distribution, current[name]), (name, current[name])
