"""Plug-ins: code from outside the package, and when it runs."""

import hashlib
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import mser
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders import ENCODER_PLUGINS, encoder_of
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.readers import load_clip
from mser.pipeline.plugins import folders_of, known_file
from mser.pipeline.runs.evaluate import evaluate
from mser.pipeline.runs.predict import predict
from mser.pipeline.runs.report import report
from mser.pipeline.train import Run, TrainSettings
from mser.pipeline.train.head_plugins import HEAD_PLUGINS
from mser.tests.conftest import Call
from mser.tests.support.installed_plugins import SOURCE, install, tables
from mser.tests.support.train_runs import made_cache, official

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The file of the plug-ins."""
    return Path(shutil.copy(SOURCE, tmp_path / "own.py"))


def in_a_new_process() -> None:
    """Forget what was loaded, but not what the user has named."""
    for table in tables():
        for name in [name for name in table if ":" in name or name == "lowest_recall"]:
            del table[name]


def forget() -> None:
    """Be a user who has not named any code yet."""
    in_a_new_process()
    known_file().unlink(missing_ok=True)


def keys(cache: Path) -> list[str]:
    return [entry.spec.key for entry in mser.FeatureCache(cache).entries("own")]


def extract_own(cache: Path, corpus_root: Path, plugins: str = "own.py") -> None:
    extract(
        ExtractSettings(
            f"{plugins}:load",
            corpus_root,
            cache,
            {"speech": f"{plugins}:Bands"},
            workers=0,
            dtype="float32",
        )
    )


def train_own(cache: Path, head: str, out: Path, *more: str) -> Run:
    settings = TrainSettings(head, "own", cache, {"speech": None}, out=out, device="cpu")
    return mser.train_head(settings.with_overrides(["epochs=1", *more]))


@pytest.fixture
def trained(own: Path, corpus_root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A cache and a run of the plug-ins of ``own.py`` in the folder of both."""
    monkeypatch.chdir(own.parent)
    extract_own(own.parent / "cache", corpus_root)
    train_own(own.parent / "cache", "own.py:LateFusion", own.parent / "run")
    return own.parent / "cache", own.parent / "run"


def test_one_file_serves_all_stages_of_the_command_line(
    call: Call, own: Path, corpus_root: Path
) -> None:
    extracted = call(
        *("extract", "--dataset", "own.py:load", "--root", corpus_root, "--cache", "cache"),
        *("--modalities", "speech", "--speech-encoder", "own.py:Bands(bands=8)"),
        *("--store", "own.py:NpyFormat", "--dtype", "float32", "--workers", 0),
    )
    assert extracted[0] == 0, extracted[2]
    in_a_new_process()
    code, out, err = call(
        *("train-head", "--dataset", "own", "--cache", "cache", "--modalities", "speech"),
        *("--head", "own.py:LateFusion", "--set", "epochs=1", "--set", "head.width=4"),
        *("--set", "monitor=own.py:lowest_recall", "--out", "run", "--device", "cpu"),
    )
    assert code == 0, err
    assert "LateFusion on own" in out
    assert "lowest recall" in out
    in_a_new_process()
    assert call("evaluate", "run")[0] == 0
    again = json.loads(Path("run/again.json").read_text())
    assert again["aggregate"] == again["as_trained"]
    assert "lowest_recall" in again["aggregate"]
    in_a_new_process()
    entry = mser.FeatureCache("cache").open("own", encoder="own.py:Bands(bands=8)")
    id = entry.ids[0]
    clip = synthetic.load(corpus_root).utterances[0].audio
    code, out, err = call("predict", "run", "--audio", clip, "--json")
    assert code == 0, err
    assert set(json.loads(out)["probabilities"]) == {"angry", "happy", "neutral", "sad"}
    assert call("report", "run", "--out", "report.html")[0] == 0
    assert "lowest recall" in Path("report.html").read_text()
    # The features, computed here.
    assert clip is not None
    wave = load_clip(clip)
    frames = wave[: len(wave) // 400 * 400].reshape(-1, 400)
    power = (np.abs(np.fft.rfft(frames)) ** 2)[:, :200].reshape(len(frames), 8, 25).mean(axis=2)
    np.testing.assert_allclose(entry[id][0], np.log(power + 1e-6), rtol=1e-4, atol=1e-4)
    recorded = tomllib.loads(Path("run/config.toml").read_text())["plugins"]
    hashed = hashlib.sha256(own.read_bytes()).hexdigest()
    assert recorded["head"] == {"spec": f"{own}:LateFusion", "sha256": hashed}
    assert recorded["monitor"] == {"spec": f"{own}:lowest_recall", "sha256": hashed}


def test_an_installed_package_serves_all_stages_by_name(
    call: Call, tmp_path: Path, corpus_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mser_own_stages", "1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    extracted = call(
        *("extract", "--dataset", "own", "--root", corpus_root, "--cache", "cache"),
        *("--modalities", "speech", "--speech-encoder", "bands", "--store", "npy"),
        *("--workers", 0),
    )
    assert extracted[0] == 0, extracted[2]
    code, out, err = call(
        *("train-head", "--dataset", "own", "--cache", "cache", "--modalities", "speech"),
        *("--head", "late-fusion", "--set", "epochs=1", "--out", "run", "--device", "cpu"),
    )
    assert code == 0, err
    assert "lowest recall" in out  # an installed metric is one of every table
    assert call("evaluate", "run")[0] == 0
    clip = synthetic.load(corpus_root).utterances[0].audio
    assert call("predict", "run", "--audio", clip)[0] == 0
    assert call("report", "run", "--out", "report.html")[0] == 0
    head = tomllib.loads(Path("run/config.toml").read_text())["plugins"]["head"]
    assert (head["spec"], head["distribution"]) == ("late-fusion", "mser-own 1.0")
    assert not known_file().exists()


def test_another_version_of_a_package_is_another_encoder_and_a_run_refuses_it(
    tmp_path: Path, corpus_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mser_own_versions", "1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    before = mser.load_encoder("bands").identity
    install(tmp_path / "site", "mser_own_versions", "1.1")
    ENCODER_PLUGINS.table.pop("bands")
    after = mser.load_encoder("bands").identity
    assert (before["distribution"], after["distribution"]) == ("mser-own 1.0", "mser-own 1.1")
    assert before["code"] == after["code"]


def test_changed_code_of_an_encoder_is_another_entry(
    own: Path, corpus_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract_own(tmp_path / "cache", corpus_root)
    extract_own(tmp_path / "cache", corpus_root)
    first = keys(tmp_path / "cache")
    assert len(first) == 1
    own.write_text(own.read_text().replace("bands: int = 4", "bands: int = 8"))
    extract_own(tmp_path / "cache", corpus_root)
    assert len(keys(tmp_path / "cache")) == 2
    # Also if neither the parameters nor the form of the features show the change.
    own.write_text(own.read_text().replace("+ 1e-6", "+ 1e-5"))
    extract_own(tmp_path / "cache", corpus_root)
    assert len(set(keys(tmp_path / "cache"))) == 3
    opened = mser.FeatureCache("cache").open("own", encoder="own.py:Bands")
    assert opened.spec.identity["code"] == hashlib.sha256(own.read_bytes()).hexdigest()


def test_a_parameter_is_part_of_the_identity_and_of_the_name(own: Path) -> None:
    four, eight = (mser.load_encoder(f"{own}:Bands{more}") for more in ("", "(bands=8)"))
    assert (four.name, eight.name) == ("Bands", "Bands(bands=8)")
    assert (four.dim, eight.dim) == (4, 8)
    assert four.identity["parameters"] == {"bands": 4}
    assert eight.identity == {**four.identity, "parameters": {"bands": 8}}
    with pytest.raises(UsageError, match="unknown Bands option 'band': did you mean 'bands'"):
        mser.load_encoder(f"{own}:Bands(band=8)")
    with pytest.raises(UsageError, match="Bands option 'bands' must be of type int, not 'many'"):
        mser.load_encoder(f"{own}:Bands(bands=many)")


def spy(own: Path) -> Path:
    """Change the file so that it leaves a mark when its code runs."""
    mark = own.with_name("mark")
    own.write_text(own.read_text() + f"\nopen({str(mark)!r}, 'w').close()\n")
    return mark


def test_a_run_of_somebody_else_never_runs_its_code(
    own: Path, corpus_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = spy(own)
    extract_own(tmp_path / "cache", corpus_root)
    train_own(tmp_path / "cache", "own.py:LateFusion", tmp_path / "run")
    forget()
    mark.unlink()
    sys.modules.pop(f"mser_plugin_{hashlib.sha256(own.read_bytes()).hexdigest()[:16]}")
    with pytest.raises(UsageError, match=r"run names the head .*own.py:LateFusion, whose code you"):
        evaluate(tmp_path / "run")
    with pytest.raises(UsageError, match=r"--head .*own.py:LateFusion"):
        predict(tmp_path / "run", own)
    with pytest.raises(UsageError, match="belongs to another run"):
        train_own(tmp_path / "cache", "linear", tmp_path / "run")
    report([tmp_path / "run"], tmp_path / "report.html")
    assert len(mser.FeatureCache("cache").open("own")) == 24
    assert not mark.exists()
    assert evaluate(tmp_path / "run", head="own.py:LateFusion").facts["notes"][1:] == []
    assert mark.exists()
    in_a_new_process()
    evaluate(tmp_path / "run")  # the user has named this code now


def test_a_cache_of_somebody_else_never_runs_its_code(
    trained: tuple[Path, Path], own: Path, corpus_root: Path
) -> None:
    cache, run = trained
    train_own(cache, "linear", run.with_name("linear"), "optimizer=adamw")
    clip = synthetic.load(corpus_root).utterances[0].audio
    assert predict(run.with_name("linear"), clip).winner in {"angry", "happy", "neutral", "sad"}
    forget()
    with pytest.raises(UsageError, match=r"own.py:Bands, whose code .* --speech-encoder .*:Bands"):
        predict(run.with_name("linear"), clip)
    predict(run.with_name("linear"), clip, encoders={"speech": "own.py:Bands"})
    # An entry, or a run, can also name code where a folder or a key belongs.
    forget()
    config = run.with_name("linear") / "config.toml"
    key = keys(cache)[0]
    config.write_text(config.read_text().replace(f'"{key}"', f'"{own}:Bands"'))
    with pytest.raises(UsageError, match="has an encoder without a key"):
        predict(run.with_name("linear"), clip)
    assert not known_file().exists()


def test_a_run_refuses_changed_code_unless_it_is_named_again(
    trained: tuple[Path, Path], own: Path
) -> None:
    _, run = trained
    own.write_text(own.read_text() + "\n# changed\n")
    in_a_new_process()
    with pytest.raises(UsageError, match=r"run was made with other code than the head .* restore"):
        evaluate(run)
    HEAD_PLUGINS.admit("own.py:LateFusion")  # also if the new code is known
    with pytest.raises(UsageError, match="was made with other code"):
        evaluate(run)
    (_, note) = evaluate(run, head="own.py:LateFusion").facts["notes"]
    assert note == "the code of own.py:LateFusion is not that with which the run was trained"
    with pytest.raises(UsageError, match=r"belongs to another run, with plugins.head.sha256"):
        train_own(trained[0], "own.py:LateFusion", run)


def test_a_worker_refuses_code_that_differs_from_that_of_its_job(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = mser.load_encoder("own.py:Bands")
    in_a_new_process()
    encoder_of(encoder.settings)
    own.write_text(own.read_text() + "\n# changed\n")
    in_a_new_process()
    with pytest.raises(PipelineError, match=r"the code of .*own.py:Bands changed"):
        encoder_of(encoder.settings)


@pytest.mark.parametrize(
    ("head", "text", "message"),
    [
        ("gone.py:Head", "", "head '.*gone.py:Head': No such file"),
        ("bad.py:Head", "class Head: pass", "bad.py:Head is not a head: name a subclass of Head"),
        ("bad.py:Other", "class Head: pass", "cannot be loaded .AttributeError"),
        ("bad.py:Head", "class Head(", "cannot be loaded .SyntaxError: .* correct its code"),
        ("bad.py:Head", "1 / 0", "cannot be loaded .ZeroDivisionError: division by zero"),
        ("bad.py", "", "head 'bad.py': name the object in the file too, as bad.py:NAME"),
        ("no_such_module:Head", "", "Python does not find the module"),
        ("liner", "", "unknown head 'liner': did you mean 'linear'"),
    ],
)
def test_a_wrong_plugin_is_one_sentence(
    call: Call, tmp_path: Path, head: str, text: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(text)
    made_cache(tmp_path / "cache", official(), dataset="own")
    code, _, err = call("train-head", "--dataset", "own", "--cache", "cache", "--head", head)
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert not known_file().exists()


def test_a_class_of_a_module_is_a_plugin_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SOURCE, tmp_path / "own_module_of_plugins.py")
    monkeypatch.syspath_prepend(tmp_path)
    head = mser.build_head("own_module_of_plugins:LateFusion", {"speech": 4}, 3, width=5)
    assert type(head).__name__ == "LateFusion"
    assert "own_module_of_plugins:LateFusion" in known_file().read_text()


def test_workers_must_see_the_folders_of_the_files(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = mser.load_encoder("own.py:Bands")
    assert encoder.settings.files.shared == (tmp_path,)
    assert mser.load_encoder("log-mel").settings.files.shared == ()
    specs = [f"{own}:LateFusion", "package.module:Head", "linear", "zarr"]
    assert folders_of(specs) == {tmp_path}
