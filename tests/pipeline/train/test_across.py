"""Runs that train on some corpora and test on others, from the command line to the report."""

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import recall_score

from mser.pipeline.corpora import synthetic
from mser.pipeline.corpora.class_map import COMMON_FOUR
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.runs.evaluate import evaluate
from mser.pipeline.runs.loaded_run import load_run
from mser.pipeline.runs.report import report
from mser.pipeline.train import Run, TrainSettings, train_head
from mser.pipeline.train.trainer import Trainer
from mser.tests.conftest import Call
from mser.tests.support.train_runs import made_cache, make_utterance, rows, timeless

SHORT = {"angry": "ang", "happy": "exc", "neutral": "neu", "sad": "sad"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora, of which b has other names of labels, and a class that the others lack."""
    root = tmp_path_factory.mktemp("across")
    for name, count in (("a", 40), ("b", 24), ("c", 12)):
        utterances = [
            make_utterance(f"{name}{n}", speaker=str(n % 4), dialogue=None) for n in range(count)
        ]
        shown = {u.id: str(u.label) for u in utterances}
        if name == "b":
            utterances = [_renamed(u) for u in utterances]
            utterances.append(make_utterance("b-other", label="fru", speaker="1"))
        made_cache(root, utterances, shown=shown, dataset=name, clip=name, protocol="speaker-folds")
    return root


def _renamed(utterance):
    fields = {name: getattr(utterance, name) for name in utterance.__dataclass_fields__}
    return make_utterance(**fields | {"label": SHORT[utterance.label]})


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "run"
    return train_head(settings(cache, out, dataset="a", test_on=("b", "c")))


def settings(cache: Path, out: Path, **changes) -> TrainSettings:
    fields = {"head": "linear", "encoders": {"speech": None}, "device": "cpu", **changes}
    return TrainSettings(cache=cache, out=out, **fields).with_overrides(["l2=0.1"])


def test_each_pair_of_corpora_has_a_row(run: Run) -> None:
    assert list(run.metrics["tests"]) == ["b", "c"]
    lines = str(run).splitlines()
    assert lines[0].startswith("linear on a, cross-corpus: 2 folds x 1 seed, 36 test utterances")
    assert [line.split()[:3] for line in lines if "→" in line] == [["a", "→", "b"], ["a", "→", "c"]]
    for name, of_test in run.metrics["tests"].items():
        tested = [row for row in rows(run) if row["fold"] == name]
        assert {row["id"].partition("/")[0] for row in tested} == {name}
        labels, predicted = ([row[key] for row in tested] for key in ("label", "predicted"))
        ua = recall_score(labels, predicted, average="macro")
        assert of_test["aggregate"]["ua"]["mean"] == pytest.approx(ua)
        assert ua > 0.8  # the features show the label
    # Each test corpus is drawn from by itself.
    drawn = {name: of_test["intervals"] for name, of_test in run.metrics["tests"].items()}
    assert drawn == {n: {"by": "utterance", "number": k} for n, k in (("b", 24), ("c", 12))}
    assert "interval over 24 utterances (b), 12 utterances (c) of the test part" in lines[-2]


def test_the_folds_state_every_part(run: Run) -> None:
    stated = json.loads((run.path / "folds.json").read_text())
    first, second = stated["folds"]
    assert (first["train"], first["validation"]) == (second["train"], second["validation"])
    assert {id[0] for id in first["train"] + first["validation"]} == {"a"}
    assert stated["excluded"] == {"b/b-other": "its label 'fru' is not in any of the classes"}
    config = tomllib.loads((run.path / "config.toml").read_text())
    assert (config["dataset"], config["test_on"]) == ("a", ["b", "c"])
    assert config["class_map"] == COMMON_FOUR


def test_the_same_weights_are_tested_on_every_corpus(run: Run) -> None:
    first, second = (load_run(run.path).module(fold, device="cpu") for fold in "bc")
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(value, second.state_dict()[name])


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
def test_the_head_is_trained_once_and_tested_on_each_corpus(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    trained, train = [], Trainer.train

    def counted(self, fold, *given):
        trained.append(fold.name)
        return train(self, fold, *given)

    monkeypatch.setattr(Trainer, "train", counted)
    options = [f"optimizer={optimizer}", "epochs=2"]
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    several = replace(
        settings(cache, whole, dataset="a", test_on=("b", "c"), seeds=(0, 1)), l2=None
    ).with_overrides(options)
    both = train_head(several)
    assert trained == ["b", "b"]  # a training for each seed
    only = train_head(replace(several, out=alone, folds=("c",)))
    assert trained == ["b", "b", "c", "c"]
    assert [row for row in rows(both) if row["fold"] == "c"] == rows(only)
    logged = [line for line in timeless(both) if line["fold"] == "c"]
    assert logged == timeless(only)
    for seed in (0, 1):
        files = [folder / "checkpoints" / f"c-seed{seed}.safetensors" for folder in (whole, alone)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_such_a_run_is_evaluated_embedded_and_reported(run: Run, tmp_path: Path) -> None:
    again = evaluate(run, device="cpu").facts
    for metric, scored in again["aggregate"].items():
        assert scored["pooled"] == pytest.approx(again["as_trained"][metric]["pooled"])
    assert not any("not those" in note for note in again["notes"])
    ids, vectors = load_run(run.path).embed(fold="c", device="cpu")
    assert (len(ids), len(vectors)) == (12, 12)
    report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "a → b" in page
    assert "a → c" in page
    report(run, tmp_path / "report.html", "speaker", by="label")
    page = (tmp_path / "report.html").read_text()
    assert page.count("over 4 speakers, chance") == 2 * 4  # a corpus and a metric
    assert "the intervals draw only 8 speakers, so they are unreliable" in page
    own = {*SHORT.values(), *SHORT} - {"sad"}  # the corpora's own labels: of b, then of c
    assert {name for name in own if f"<tr><td>{name}</td><td>" in page} == own


def test_several_training_corpora_and_a_map_of_classes(
    cache: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "map.toml").write_text(
        'up = ["happy"]\ndown = ["sad", "angry"]\n[b]\nup = ["exc"]\ndown = ["ang", "sad"]\n'
    )
    code, out, err = call(
        *("train-head", "--head", "linear", "--cache", cache, "--modalities", "speech"),
        *("--train-on", "b,a", "--test-on", "c", "--class-map", tmp_path / "map.toml"),
        *("--balance", "--set", "l2=0.1", "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert code == 0, err
    assert "b+a → c" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["classes"] == ["up", "down"]
    assert "left out to balance the training corpora" in metrics["excluded"]
    (fold,) = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"]
    sizes = [sum(id.startswith(name) for id in fold["train"]) for name in "ab"]
    assert sizes[0] == sizes[1] > 0
    speakers = {id: str(int(id.partition("/")[2][1:]) % 4) for id in fold["train"]}
    held_out = {id[0] + str(int(id.partition("/")[2][1:]) % 4) for id in fold["validation"]}
    assert not held_out & {id[0] + speaker for id, speaker in speakers.items()}
    assert {name[0] for name in held_out} == {"a", "b"}  # each corpus is validated


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train-on", "a"], "--train-on a needs --test-on"),
        (["--train-on", "a", "--test-on", "a,b"], "'a' is in --train-on and in --test-on"),
        (["--dataset", "a", "--train-on", "a", "--test-on", "b"], "give one of them"),
        (["--train-on", "a", "--test-on", "b", "--protocol", "official"], "--protocol is for one"),
        (["--train-on", "a", "--test-on", "b", "--classes", "4"], "--classes is for one corpus"),
        (
            ["--train-on", "a", "--test-on", "b", "--target", "valence,arousal"],
            "--target valence,arousal is for one corpus: leave it out with --train-on and",
        ),
        (["--dataset", "a", "--balance"], "--balance is for several corpora"),
        (["--train-on", "a", "--test-on", "d"], "unknown dataset"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(
    cache: Path, tmp_path: Path, call: Call, options: list[str], words: str
) -> None:
    given = ["--head", "linear", "--cache", cache, "--modalities", "speech"]
    code, _, err = call("train-head", *given, "--out", tmp_path / "r", *options)
    assert code == 2
    assert words in err
    assert not (tmp_path / "r").exists()


def test_corpora_of_different_encoders_are_one_sentence(tmp_path: Path) -> None:
    for name, layers in (("a", (0, 1)), ("b", (1, 2))):
        utterances = [make_utterance(f"{name}{n}") for n in range(12)]
        made_cache(tmp_path / "cache", utterances, dataset=name, layers=layers, clip=name)
    with pytest.raises(UsageError, match="extract both with the same encoder and settings"):
        train_head(settings(tmp_path / "cache", tmp_path / "r", dataset="a", test_on=("b",)))


# From clips to the table --------------------------------------------------------------------------


def test_other_synthetic_voices_are_tested_and_a_clip_is_predicted(
    filled_cache: Path, encoders: dict[str, str], tmp_path: Path, call: Call
) -> None:
    cache, root = shutil.copytree(filled_cache, tmp_path / "cache"), tmp_path / "other"
    other = synthetic.load_other(root, utterances_per_session=8)
    assert other.name == "synthetic-other"
    extract(ExtractSettings("synthetic-other", root, cache, encoders, workers=0, device="cpu"))
    run = train_head(
        settings(
            cache,
            tmp_path / "run",
            dataset="synthetic",
            test_on=("synthetic-other",),
            encoders=dict.fromkeys(encoders),
        )
    )
    assert run.metrics["test_utterances"] == 32
    clip = other.utterances[0]
    code, out, err = call("predict", run.path, "--audio", clip.audio, "--text", clip.text)
    assert code == 0, err
    (row,) = (row for row in rows(run) if row["id"] == f"synthetic-other/{clip.id}")
    assert out.startswith(f"{row['predicted']}: linear trained on synthetic, from speech and text")


def test_the_same_clips_under_another_name_are_a_leak(
    filled_cache: Path, encoders: dict[str, str], corpus_root: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    first = (corpus_root / "utterances.csv").read_text().splitlines()[:9]
    (tmp_path / "mine.csv").write_text(
        "\n".join(line.replace("wav/", f"{corpus_root}/wav/") for line in first)
    )
    extract(
        ExtractSettings(
            "manifest",
            cache=cache,
            encoders={"speech": encoders["speech"]},
            manifest=tmp_path / "mine.csv",
            name="mine",
            workers=0,
            device="cpu",
        )
    )
    with pytest.raises(PipelineError, match=r"'mine/ses01_.*' .* 'synthetic/ses01_.*' .*same clip"):
        train_head(settings(cache, tmp_path / "run", dataset="synthetic", test_on=("mine",)))
    assert not (tmp_path / "run").exists()
