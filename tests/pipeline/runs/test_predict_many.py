"""Predicting a manifest or a folder of clips with a finished run."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser import load_run, predict_many
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.text import TextEncoder
from mser.pipeline.encoders.wav2vec2 import Wav2Vec2Encoder
from mser.pipeline.runs import predict_many as module
from mser.pipeline.runs.predict import predict
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.new_corpora import read_rows, write_manifest
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import CLASSES, small

OFFLINE = ("--device", "cpu", "--workers", 0)
PLAIN: dict[str, Any] = {"device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> dict[str, Path]:
    """Head → a run with two seeds that is tested on session ses01. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("runs")
    settings = small("linear", filled_cache, folder, "epochs=1", seeds=(0, 1))
    settings = replace(settings, protocol="hold-out:session=ses01")
    of_dialogues = replace(settings, head="hbaf", layer="mix").with_overrides(["head.width=8"])
    return {
        name: train_head(replace(each, out=folder / name)).path
        for name, each in (("linear", settings), ("hbaf", of_dialogues))
    }


@pytest.fixture(scope="module")
def tested(corpus_root: Path) -> list[Any]:
    """The utterances of the session that the runs are tested on."""
    utterances = synthetic.load(corpus_root).utterances
    return [utterance for utterance in utterances if utterance.session == "ses01"]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> dict[str, Path]:
    """Target → a run with two seeds that is tested on session ses01."""
    folder = tmp_path_factory.mktemp("targets")
    settings = small("linear", filled_cache, folder, "epochs=1", seeds=(0, 1))
    settings = replace(settings, protocol="hold-out:session=ses01")
    return {
        target: train_head(
            replace(settings, target=tuple(target.split(",")), out=folder / target)
        ).path
        for target in ("votes,valence", "labels", "valence,arousal")
    }


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how many utterances the encoders of each modality have encoded."""
    counts: Counter[str] = Counter()
    for kind in (Wav2Vec2Encoder, TextEncoder):

        def counting(self, inputs, dtype="float32", encode=kind.encode):
            counts[self.modality] += len(inputs)
            return encode(self, inputs, dtype)

        monkeypatch.setattr(kind, "encode", counting)
    return counts


def probabilities_of(row: dict[str, str]) -> list[float]:
    return [float(row[f"p_{name}"]) for name in CLASSES]


# Predictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "hbaf"])
def test_the_test_part_of_a_run_is_predicted_as_in_the_run(
    runs: dict[str, Path], tested: list[Any], tmp_path: Path, head: str
) -> None:
    """``predictions.csv`` is the oracle: written by the training, from the cache of the run."""
    wanted: dict[str, list[list[float]]] = {}
    lines = (runs[head] / "predictions.csv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    for line in lines[1:]:
        cells = dict(zip(header, line.split(","), strict=True))
        wanted.setdefault(cells["id"], []).append(probabilities_of(cells))
    manifest = write_manifest(tmp_path / "new.csv", tested[::-1])
    result = predict_many(runs[head], manifest, tmp_path / "out.csv", **PLAIN)
    rows = read_rows(tmp_path / "out.csv")
    assert [*rows] == [utterance.id for utterance in tested[::-1]]
    for utterance in tested:
        row, each = rows[utterance.id], wanted[utterance.id]
        assert len(each) == 2
        np.testing.assert_allclose(probabilities_of(row), np.mean(each, axis=0), atol=1e-5)
        assert row["predicted"] == CLASSES[int(np.argmax(np.mean(each, axis=0)))]
        assert (row["label"], row["problem"]) == (utterance.label, "")
        assert row["modalities"] == "speech+text"
    assert result.counts == {
        name: sum(row["predicted"] == name for row in rows.values()) for name in CLASSES
    }
    assert result.table["p_sad"].to_pylist() == [float(row["p_sad"]) for row in rows.values()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


@pytest.mark.parametrize("target", ["votes,valence", "labels", "valence,arousal"])
def test_every_target_is_predicted_as_in_the_run(
    call: Call, targets: dict[str, Path], tested: list[Any], tmp_path: Path, target: str
) -> None:
    """``predictions.csv`` is the oracle here too: the mean of what both seeds predict."""
    with (targets[target] / "predictions.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    attributes = [name for name in target.split(",") if name in ("valence", "arousal")]
    classes = [name.removeprefix("p_") for name in written[0] if name.startswith("p_")]
    columns = [f"p_{name}" for name in classes] + [f"predicted_{name}" for name in attributes]
    wanted: dict[str, list[list[float]]] = {}
    for row in written:
        wanted.setdefault(row["id"], []).append([float(row[name]) for name in columns])
    means = {id: np.mean(values, axis=0) for id, values in wanted.items()}
    truth = {row["id"]: row["true_valence"] for row in written} if attributes else {}
    manifest = write_manifest(tmp_path / "new.csv", tested)
    rows = [{**row, "valence": truth.get(id)} for id, row in read_rows(manifest).items()]
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)

    typed = ["predict", targets[target], "--manifest", manifest, "--out", "out.csv", *OFFLINE]
    code, said, err = call(*typed, "--json")
    assert code == 0, err
    found = read_rows(Path("out.csv"))
    header = [*(["predicted"] if classes else []), *columns[: len(classes)]]
    header += [f"{of}_{name}" for name in attributes for of in ("true", "predicted")]
    assert [*found[tested[0].id]] == ["id", "label", *header, "modalities", "problem"]
    predicted: list[str] = []
    for id, mean in means.items():
        assert [float(found[id][name]) for name in columns] == pytest.approx(mean, abs=2e-3)
        if attributes:
            assert float(found[id]["true_valence"]) == pytest.approx(float(truth[id]))
        named = {name: float(found[id][f"p_{name}"]) for name in classes}
        if target == "labels":
            several = [name for name, p in named.items() if p >= 0.5]
            assert found[id]["predicted"] == "+".join(several)
            predicted += several
        elif classes:
            assert found[id]["predicted"] == max(named, key=named.__getitem__)
            predicted.append(found[id]["predicted"])
    result = json.loads(said)
    assert result["predicted"] == {name: predicted.count(name) for name in classes}
    for name in attributes:
        mean = np.mean([float(row[f"predicted_{name}"]) for row in found.values()])
        assert result["attributes"][name] == pytest.approx(mean)


def test_each_utterance_is_predicted_from_what_it_has(
    runs: dict[str, Path], tested: list[Any], tmp_path: Path
) -> None:
    whole, mute, written = tested[:3]
    changes: dict[str, Any] = {mute.id: {"text": ""}, written.id: {"audio": ""}}
    manifest = write_manifest(tmp_path / "new.csv", tested[:3], **changes)
    result = load_run(runs["linear"]).predict_many(manifest, tmp_path / "out.csv", **PLAIN)
    rows = read_rows(tmp_path / "out.csv")
    for utterance, audio, text, used in (
        (whole, whole.audio, whole.text, "speech+text"),
        (mute, mute.audio, None, "speech"),
        (written, None, written.text, "text"),
    ):
        alone = predict(runs["linear"], audio, text, device="cpu").probabilities
        row = rows[utterance.id]
        np.testing.assert_allclose(probabilities_of(row), [*alone.values()], atol=1e-5)
        assert row["modalities"] == used
    assert [note for note in result.notes if "1 utterances lack text" in note]
    assert [note for note in result.notes if "1 utterances lack speech" in note]


def test_a_bad_clip_is_named_and_the_others_are_predicted(
    call: Call, runs: dict[str, Path], tested: list[Any], tmp_path: Path
) -> None:
    good, broken, absent, empty = tested[:4]
    (tmp_path / "noise.wav").write_bytes(bytes(range(256)))
    changes: dict[str, Any] = {
        broken.id: {"audio": "noise.wav"},
        absent.id: {"audio": "gone.wav"},
        empty.id: {"audio": "", "text": ""},
    }
    write_manifest(tmp_path / "new.csv", tested[:4], **changes)
    options = ["--manifest", "new.csv", "--out", "out.csv", "--workers", 0, "--device", "cpu"]
    code, out, _ = call("predict", runs["linear"], *options, "--json")
    assert code == 0
    rows, problems = read_rows(tmp_path / "out.csv"), json.loads(out)["problems"]
    assert rows[good.id]["predicted"] in CLASSES
    assert {*problems} == {broken.id, absent.id, empty.id}
    for id, words in ((broken.id, "noise"), (absent.id, "gone.wav"), (empty.id, "nothing of")):
        assert rows[id]["predicted"] == rows[id]["p_sad"] == rows[id]["modalities"] == ""
        assert rows[id]["problem"] == problems[id]
        assert words in problems[id] or id == broken.id
    assert "unreadable" in problems[broken.id]


def test_a_folder_of_clips_is_predicted(
    call: Call, runs: dict[str, Path], tested: list[Any], tmp_path: Path
) -> None:
    for number, name in enumerate(("b.wav", "deep/é a.WAV", ".hidden.wav", "deep/._c.wav")):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tested[number].audio, tmp_path / "clips" / name)
    (tmp_path / "clips" / "read me.txt").write_text("no clip")
    options = ["--audio", "clips", "--out", "deep/out.csv", "--workers", 0, "--device", "cpu"]
    code, out, _ = call("predict", runs["linear"], *options)
    assert code == 0
    rows = read_rows(tmp_path / "deep" / "out.csv")
    assert [*rows] == ["b.wav", "deep/é a.WAV"]
    for row, utterance in zip(rows.values(), tested, strict=False):
        alone = predict(runs["linear"], utterance.audio, device="cpu").probabilities
        np.testing.assert_allclose(probabilities_of(row), [*alone.values()], atol=1e-5)
    assert "1 other files are left out, such as 'clips/read me.txt'" in out
    assert "2 of 2 utterances are predicted, by linear trained on synthetic" in out


def test_predictions_never_replace_the_manifest(
    runs: dict[str, Path], tested: list[Any], tmp_path: Path, call: Call
) -> None:
    manifest = write_manifest(tmp_path / "new.csv", tested[:1])
    before = manifest.read_bytes()
    (tmp_path / "link.csv").symlink_to(manifest)
    for out in ("new.csv", "link.csv", tmp_path / "new.csv"):
        options = ["--manifest", "new.csv", "--out", out, *OFFLINE]
        code, _, error = call("predict", runs["linear"], *options)
        assert code == 2
        assert is_one_sentence(error)
        assert "is the manifest, which the predictions would replace: give --out another" in error
        assert manifest.read_bytes() == before


# Interrupted, and again ---------------------------------------------------------------------------


def test_a_command_that_was_killed_continues(
    runs: dict[str, Path],
    tested: list[Any],
    tmp_path: Path,
    encoded: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest, out = write_manifest(tmp_path / "new.csv", tested[:4]), tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_output", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_many(runs["linear"], manifest, out, **PLAIN)
    assert encoded == {"speech": 4, "text": 4}
    assert not out.exists()
    write_manifest(manifest, tested[:5])
    predict_many(runs["linear"], manifest, out, **PLAIN)
    assert encoded == {"speech": 5, "text": 5}  # only the new one
    assert len(read_rows(out)) == 5
    assert not (tmp_path / "out.csv.features").exists()


def test_features_that_are_kept_serve_another_run(
    runs: dict[str, Path], tested: list[Any], tmp_path: Path, encoded: Counter[str]
) -> None:
    manifest, out = write_manifest(tmp_path / "new.csv", tested[:3]), tmp_path / "out.csv"
    for head in ("linear", "hbaf"):
        predict_many(runs[head], manifest, out, features=tmp_path / "kept", **PLAIN)
        assert encoded == {"speech": 3, "text": 3}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["predict-new"]


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--manifest", "new.csv"], "give --out FILE.csv"),
        (["--manifest", "new.csv", "--out", "out.xlsx"], "ends in .csv"),
        (["--manifest", "absent.csv", "--out", "out.csv"], "there is no manifest"),
        (["--manifest", "new.csv", "--audio", "empty", "--out", "o.csv"], "leave out --audio"),
        (["--manifest", "new.csv", "--text", "oh", "--out", "o.csv"], "--text is for one clip"),
        (["--manifest", "bare.csv", "--out", "o.csv"], "has no audio or text"),
        (["--audio", "empty", "--out", "o.csv"], "holds no audio or video file"),
        (["--text", "oh", "--out", "o.csv"], "--out is for --manifest"),
        (["--text", "oh", "--workers", 0], "--workers is for --manifest"),
        (
            ["--manifest", "new.csv", "--out", "o.csv", "--text-encoder", "./absent"],
            "absent",
        ),
    ],
)
def test_wrong_arguments_are_one_sentence(
    call: Call,
    runs: dict[str, Path],
    tested: list[Any],
    tmp_path: Path,
    options: list[Any],
    words: str,
) -> None:
    write_manifest(tmp_path / "new.csv", tested[:1])
    (tmp_path / "bare.csv").write_text("id,speaker\na,ana\n")
    (tmp_path / "empty").mkdir()
    code, out, err = call("predict", runs["linear"], *options)
    assert (code, out) == (2, "")
    assert is_one_sentence(err.splitlines()[-1])
    assert words in err
    assert not list(tmp_path.glob("o*.csv"))
