"""An ablation: one command makes a table, and trains no system twice."""

import csv
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.train import runner
from mser.pipeline.train.jobs import OnEpoch, TrainingJob, TrainingReport, run_training
from mser.pipeline.train.presets import read
from mser.tests.conftest import Call
from mser.tests.support.train_runs import made_cache, official

OWN = """
title = "Without the text"
source = "a paper that nobody has written"
note = "Another corpus than the paper's."
seeds = [3]
preset = "own-preset.toml"
metrics = ["wa", "macro_f1"]
missing = ["text"]

[[systems]]
name = "linear, all"
paper = { wa = 71.5, macro_f1 = 70 }

[[systems]]
name = "linear, one layer"
paper = { wa = 60 }
against = ["linear, all"]
layer = "last"
set = { "head.dropout" = 0.5, epochs = 2 }

[[systems]]
name = "query"
head = "query"
set = { "head.width" = 16, "head.n_attention_heads" = 2 }

[[systems]]
name = "speech alone"
modalities = ["speech"]
"""
PRESET = """
head = "linear"
dataset = "synthetic"
epochs = 1
optimizer = "adamw"
learning_rate = 0.01
[head_options]
dropout = 0.1
"""
SYSTEMS = ("linear-all", "linear-one-layer", "query", "speech-alone")


@pytest.fixture
def typed(tmp_path: Path, filled_cache: Path) -> list[object]:
    """The command, typed where the files are."""
    (tmp_path / "own.toml").write_text(OWN)
    (tmp_path / "own-preset.toml").write_text(PRESET)
    return ["ablate", "--preset", "own.toml", "--cache", filled_cache, "--device", "cpu"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each fold of each system was trained; Ctrl-C comes after ten trainings."""
    counts: Counter[tuple[str, str]] = Counter()

    def run_counted(job: TrainingJob, tick: OnEpoch) -> TrainingReport:
        if counts.total() == 10 and ctrl_c:  # in the middle of the third system
            raise ctrl_c.pop()
        counts[job.run.name, job.fold] += 1
        return run_training(job, tick)

    ctrl_c = [KeyboardInterrupt()]
    monkeypatch.setattr(runner, "run_training", run_counted)
    return counts


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics(system: str) -> Any:
    return json.loads(Path("ablations", "own", system, "metrics.json").read_text())["aggregate"]


def test_an_interrupted_ablation_continues_and_makes_the_table(
    call: Call, typed: list[object], trained: Counter[tuple[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "ablations" / "own"
    code, _, err = call(*typed)
    assert code == 130
    assert err.splitlines()[-1].startswith("mser: interrupted: finished work is kept")
    assert "| query | – |" in (out / "table.md").read_text()  # not trained yet
    assert "| linear, all | – |" not in (out / "table.md").read_text()

    code, said, err = call(*typed)
    assert code == 0, err
    folds = [f"ses0{n}" for n in (1, 2, 3, 4)]
    assert trained == {(system, fold): 1 for system in SYSTEMS for fold in folds}
    assert said.count("query on synthetic") == 1

    code, said, err = call(*typed, "--json")
    assert (code, trained.total()) == (0, 16)
    result = json.loads(said)
    assert [row["system"] for row in result["rows"][::2]] == [
        *("linear, all", "linear, one layer", "query", "speech alone")
    ]

    # The table holds the scores of the runs, and those of the paper.
    table = (out / "table.md").read_text()
    assert table.startswith("# Without the text\n")
    assert "Paper: a paper that nobody has written.\n- Another corpus than the paper's.\n" in table
    assert "over folds and seeds (3)" in table
    head = "| system | WA | WA, paper | macro F1 | macro F1, paper | gain in WA [95 %] |"
    assert head in table
    wa, f1 = (metrics("linear-all")[metric] for metric in ("wa", "macro_f1"))
    assert (
        f"| linear, all | {100 * wa['mean']:.2f} ± {100 * wa['std']:.2f} | 71.50 "
        f"| {100 * f1['mean']:.2f} ± {100 * f1['std']:.2f} | 70.00 |  |"
    ) in table
    without = json.loads((out / "query" / "without-text.json").read_text())["aggregate"]["wa"]
    assert f"| query, without text | {100 * without['mean']:.2f} ± " in table
    assert "| speech alone, without text | – |  | – |  |  |" in table
    found = rows(out / "table.csv")
    assert len(found) == 4 * 2 * 2
    for row in found:
        if row["system"] == "linear, one layer" and not row["missing"]:
            scored = metrics("linear-one-layer")[row["metric"]]
            for key in ("mean", "std", "pooled"):
                assert float(row[key]) == scored[key]
            assert [float(row["ci95_low"]), float(row["ci95_high"])] == scored["pooled_ci95"]
            assert row["paper_percent"] == ("60" if row["metric"] == "wa" else "")
        if row["missing"]:
            assert row["paper_percent"] == ""
            assert (row["mean"] == "") is (row["system"] == "speech alone")

    # The runs have the settings of the presets and the systems.
    configs = [(out / system / "config.toml").read_text() for system in SYSTEMS]
    assert ["dropout = 0.1" in config for config in configs] == [True, False, False, True]
    assert [tomllib.loads(config)["seeds"] for config in configs] == [[3]] * 4
    assert "dropout = 0.5" in configs[1]
    assert 'layer = "last"' in configs[1]
    assert 'head = "query"' in configs[2]
    assert "[encoders.text]" not in configs[3]

    # Other settings need another folder.
    before = (out / "table.md").read_bytes()
    code, said, err = call(*typed, "--set", "learning_rate=0.02")
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "with learning_rate = 0.01 and not 0.02: give another folder with --out" in err
    assert "with seeds = [3] and not [4]" in call(*typed, "--seeds", "4")[2]
    assert (out / "table.md").read_bytes() == before
    assert trained.total() == 16


GAIN = """
title = "Against the better of two"
preset = "own-preset.toml"
metrics = ["ua"]

[[systems]]
name = "both"
against = ["text", "speech"]

[[systems]]
name = "text"
modalities = ["text"]

[[systems]]
name = "speech"
modalities = ["speech"]
"""


def test_the_gain_is_over_the_better_of_two_others(
    call: Call, typed: list[object], tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(GAIN)
    assert call(*typed)[0] == 0
    out = tmp_path / "ablations" / "own"
    best = max(("text", "speech"), key=lambda modality: metrics(modality)["ua"]["mean"])
    _, said, _ = call("compare", out / best, out / "both", "--metric", "ua", "--json")
    expected = json.loads(said)["metrics"]["ua"]
    (row,) = [row for row in rows(out / "table.csv") if row["gain"]]
    assert (row["system"], row["against"]) == ("both", best)
    assert float(row["gain"]) == expected["difference"]
    low, high = (float(row[f"gain_ci95_{end}"]) for end in ("low", "high"))
    assert [low, high] == expected["difference_ci95"]
    table = (out / "table.md").read_text()
    gain = f"{100 * expected['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] over {best}"
    assert "| system | UA | gain in UA [95 %] |" in table
    assert table.count(f" | {gain} |") == 1


@pytest.mark.parametrize("name", ["mgcma-table2", "mgcma-table3"])
def test_each_system_of_the_tables_of_mgcma_is_compared_with_the_full_model(name: str) -> None:
    content = read(name, "ablations")
    full, *others = content["systems"]
    assert full["set"] == {"head.modules": ["distribution", "token", "instance"]}
    assert all(system["against"] == [full["name"]] for system in others)
    assert content["seeds"] == [0, 1, 2]
    assert "63.4 WA" in content["note"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("title =", "titel ="), "did you mean 'title'"),
        (('title = "Without the text"', ""), "own.toml: title is missing: add it"),
        (('preset = "own-preset.toml"', ""), "own.toml: preset is missing"),
        (('name = "query"', ""), "own.toml, system 3: name is missing"),
        (('name = "query"', "name = 3"), "system 3: name = 3: give a text"),
        (('name = "query"', 'name = "linear, all!"'), "two systems have the same name"),
        (('"macro_f1"]', '"f1"]'), "unknown metric in own.toml 'f1'"),
        (("wa = 60", "war = 60"), "unknown metric in own.toml, system 2 'war'"),
        (('["text"]', '["texts"]'), "unknown modality in own.toml 'texts'"),
        (('["text"]', '"text"'), "missing = 'text': give a list"),
        (("epochs = 2", "epoch = 2"), "did you mean 'epochs'"),
        (('head = "query"', 'head = "queri"'), "did you mean 'query'"),
        (
            ('["linear, all"]', '["linear, al"]'),
            "unknown system in against of 'linear, one layer'",
        ),
        (("head.width", "head.widht"), "did you mean 'width'"),
        (('layer = "last"', "layer = 3"), "system 2: layer = 3: give a text"),
        (("own-preset.toml", "gone.toml"), "preset gone.toml: No such file"),
    ],
)
def test_an_invalid_ablation_is_one_sentence(
    call: Call, typed: list[object], tmp_path: Path, changed: tuple[str, str], says: str
) -> None:
    old, new = changed
    assert OWN.count(old) == 1
    (tmp_path / "own.toml").write_text(OWN.replace(old, new))
    code, out, err = call(*typed)
    assert (code, out) == (2, "")
    assert err.startswith("mser: ")
    assert err.count("\n") == 1
    assert says in err


ENCODERS = """
title = "Encoders"
preset = "own-preset.toml"
metrics = ["ua"]
set = { epochs = 2, "head.dropout" = 0.3 }

[[systems]]
name = "first"
encoders = { speech = "first" }
modalities = ["speech"]

[[systems]]
name = "second"
encoders = { speech = "second" }
modalities = ["speech"]
set = { epochs = 1 }
"""


@pytest.fixture
def two_encoders(tmp_path: Path) -> Path:
    """A cache with the features of two speech encoders. Only those of ``first`` show the label."""
    corpus = official(train=48, validation=16, test=16)
    for encoder, labelled in (("first", [0, 1]), ("second", [])):
        made_cache(tmp_path / "two", corpus, encoder=encoder, labelled_layers=labelled)
    (tmp_path / "own.toml").write_text(ENCODERS)
    (tmp_path / "own-preset.toml").write_text(PRESET.replace("synthetic", "made-up"))
    return tmp_path / "two"


def test_the_systems_of_an_ablation_may_differ_in_their_encoders(
    call: Call, two_encoders: Path
) -> None:
    typed = ("ablate", "--preset", "own.toml", "--cache", two_encoders, "--device", "cpu")
    code, _, err = call(*typed, "--set", "learning_rate=0.1")
    assert code == 0, err
    out = Path("ablations", "own")
    configs = {
        name: tomllib.loads((out / name / "config.toml").read_text())
        for name in ("first", "second")
    }
    assert {name: config["encoders"]["speech"]["name"] for name, config in configs.items()} == {
        "first": "first",
        "second": "second",
    }
    # The values of a system override those of all systems, which override the preset.
    assert [configs[name]["epochs"] for name in ("first", "second")] == [2, 1]
    assert [config["head_options"] for config in configs.values()] == [{"dropout": 0.3}] * 2
    assert metrics("first")["ua"]["mean"] > metrics("second")["ua"]["mean"] + 0.2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            ('speech = "second"', 'speech = "third"'),
            "own.toml, system 'second': {cache} holds no speech features of made-up by 'third', "
            "only by 'first' (key ",
        ),
        (
            ('speech = "second"', 'text = "second"'),
            "own.toml, system 'second': encoders names an encoder of text, and the system has only "
            "speech: add text to its modalities",
        ),
        (('{ speech = "second" }', '"second"'), "system 2: encoders = 'second': give a table"),
    ],
)
def test_an_encoder_that_is_not_in_the_cache_is_one_sentence(
    call: Call, two_encoders: Path, tmp_path: Path, changed: tuple[str, str], says: str
) -> None:
    (tmp_path / "own.toml").write_text(ENCODERS.replace(*changed))
    code, out, err = call("ablate", "--preset", "own.toml", "--cache", two_encoders)
    assert (code != 0, out, err.count("\n")) == (True, "", 1)
    assert says.format(cache=two_encoders) in err
    assert not Path("ablations").exists()


def test_an_ablation_without_systems(call: Call, typed: list[object], tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN[: OWN.index("[[systems]]")])
    assert "own.toml: systems is missing" in call(*typed)[2]
    (tmp_path / "own.toml").write_text("systems = []\n" + OWN[: OWN.index("[[systems]]")])
    code, _, err = call(*typed)
    assert (code, "has no systems" in err) == (2, True)
