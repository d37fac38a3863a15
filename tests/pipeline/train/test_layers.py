"""``--layer`` takes the encoder's own numbers; old runs with positions keep their meaning."""

import hashlib
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file

from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.runs.report import report
from mser.pipeline.train import Run, runner, train_head
from mser.pipeline.train.jobs import run_training
from mser.pipeline.train.layers import layer_positions
from mser.tests.support.train_runs import made, made_cache, official, read_json, results

STORED = {"speech": (0, 6, 12), "text": (0, 2, 6)}
# What a run of before has, too.
FORMER = ("standardise=false", "head.pooling='mean'")
ENOUGH = ("epochs=8", "learning_rate=0.1", "patience=99", *FORMER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 0, 6 and 12, of which only 6 shows the label. Do not change it."""
    root = tmp_path_factory.mktemp("layers") / "cache"
    corpus = official(train=48, validation=16, test=16)
    return made_cache(root, corpus, layers=(0, 6, 12), labelled_layers=[6])


@pytest.fixture(scope="module")
def of_layer_6(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on layer 6. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("layer-6") / "run"
    return train_head(made(cache, out, *ENOUGH, layer="6"))


# What is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        (None, None),
        ("mix", "mix"),
        ("last", "last"),
        ("6", {"speech": (1,), "text": (2,)}),
        ("0,6", {"speech": (0, 1), "text": (0, 2)}),
        ("6, 0", {"speech": (1, 0), "text": (2, 0)}),
        ("speech=12", {"speech": (2,)}),
        ("speech=0,12,text=last", {"speech": (0, 2), "text": "last"}),
        ("text=2,speech=mix", {"speech": "mix", "text": (1,)}),
    ],
)
def test_numbers_become_positions_of_each_modality(text: str | None, positions: Any) -> None:
    assert layer_positions(text, STORED) == positions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12", "layer 12 of text is not in the cache, which holds layers 0,2,6: choose one"),
        ("speech=1", "layer 1 of speech is not in the cache, which holds layers 0,6,12: choose"),
        (
            "-1",
            "layers '-1': a layer number is never negative: give mix, concat, last, or",
        ),
        ("text=0,-2", "layers '0,-2': a layer number is never negative"),
        ("first", "layers 'first': give mix, concat, last, or the encoder's own layer numbers"),
        ("0,last", "layers '0,last': give mix, concat, last, or"),
        ("²", "layers '²': give mix, concat, last, or"),
        ("", "layers '': give mix, concat, last, or"),
        ("6,6", "layer '6,6': give each layer once"),
        ("video=0", "unknown modality in layer 'video'"),
        ("6,text=0", "layer '6,text=0': '6' has no modality: write speech=6, or"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        layer_positions(text, STORED)


@pytest.mark.parametrize(
    ("text", "stored", "positions"),
    [
        (None, range(13), {"speech": (0, 1, 2, 3)}),
        (None, (0, 1, 2), {"speech": (0, 1, 2)}),  # perhaps all layers of the encoder
        (None, (12, 3, 2, 1, 0), {"speech": (4, 3, 2, 1)}),  # as they lie in the arrays
        ("text=2", range(13), {"speech": (0, 1, 2, 3), "text": (1,)}),
        ("mix", (0, 6, 12), "mix"),
        ("last", (12,), "last"),
        ("speech=6", (0, 6, 12), {"speech": (1,)}),
    ],
)
def test_a_default_of_the_head_names_layers_of_the_encoder(
    text: str | None, stored: Any, positions: Any
) -> None:
    cached = {"speech": stored, "text": (0, 2, 6)}
    assert layer_positions(text, cached, {"speech": (0, 1, 2, 3)}) == positions
    assert layer_positions(None, {"text": (0, 2)}, {"speech": (0, 1, 2, 3)}) is None


@pytest.mark.parametrize("text", [None, "text=2"])
@pytest.mark.parametrize("stored", [(0, 6, 12), (12,), (0, 1, 3)])
def test_a_default_layer_that_is_not_cached_is_an_error(text: str | None, stored: Any) -> None:
    held = ",".join(map(str, stored))
    message = (
        "the head reads layers 0,1,2,3 of speech by default, and the cache holds layers "
        f"{held}: choose some of these with --layer speech={held}, or extract with --layers 0,1,2,3"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        layer_positions(text, {"speech": stored, "text": (2,)}, {"speech": (0, 1, 2, 3)})


def test_hbaf_does_not_take_other_layers_for_its_low_layers(cache: Path, tmp_path: Path) -> None:
    settings = made(cache, tmp_path / "run", "epochs=1", "head.width=8")
    with pytest.raises(UsageError, match="the cache holds layers 0,6,12: choose some of these"):
        train_head(replace(settings, head="hbaf"))
    assert not (tmp_path / "run").exists()


def test_the_layer_of_that_number_is_read(cache: Path, of_layer_6: Run, tmp_path: Path) -> None:
    assert of_layer_6.metrics["aggregate"]["wa"]["mean"] > 0.9
    for layer in ("0", "12", "last"):
        run = train_head(made(cache, tmp_path / layer, *ENOUGH, layer=layer))
        assert run.metrics["aggregate"]["wa"]["mean"] < 0.7


def test_several_layers_are_mixed(cache: Path, tmp_path: Path) -> None:
    run = train_head(made(cache, tmp_path / "run", layer="speech=6,0"))
    weights = load_file(run.path / "checkpoints" / "official-seed0.safetensors")
    assert weights["mixes.mixes.speech.weights"].shape == (2,)


@pytest.mark.parametrize("layer", ["1", "-1", "first"])
def test_a_layer_that_is_not_cached_is_refused_before_a_folder_is_made(
    cache: Path, tmp_path: Path, layer: str
) -> None:
    with pytest.raises(UsageError, match="layer"):
        train_head(made(cache, tmp_path / "run", layer=layer))
    assert not (tmp_path / "run").exists()


# Old runs -----------------------------------------------------------------------------------------


def as_of_old(run: Path, layer: str | None) -> None:
    """Give a run the configuration that was written when layers were named by position."""
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config.pop("format") == 5
    if layer is not None:
        config["layer"] = layer
    (run / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("layer", ["1", "-2", "speech=1"])
def test_an_old_run_is_evaluated_on_its_own_layer(
    of_layer_6: Run, tmp_path: Path, layer: str
) -> None:
    run = shutil.copytree(of_layer_6.path, tmp_path / "run")
    as_of_old(run, layer)
    assert evaluate(run, device="cpu").facts["aggregate"] == of_layer_6.metrics["aggregate"]


def test_an_old_run_on_several_layers_is_evaluated_on_them(cache: Path, tmp_path: Path) -> None:
    """Positions 0 and 1 of an old run are the layers 0 and 6; layer 1 is not cached."""
    run = train_head(made(cache, tmp_path / "run", *FORMER, layer="0,6"))
    as_of_old(run.path, "0,1")
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]


def test_the_report_names_the_positions_of_an_old_run(of_layer_6: Run, tmp_path: Path) -> None:
    run = shutil.copytree(of_layer_6.path, tmp_path / "run")
    page = report([run], tmp_path / "new.html").path.read_text(encoding="utf-8")
    assert '<td>layer</td><td class="left">6</td>' in page
    as_of_old(run, "1")
    page = report([run], tmp_path / "old.html").path.read_text(encoding="utf-8")
    assert '<td>layer (position among the cached layers)</td><td class="left">1</td>' in page


def test_a_finished_old_run_is_found_and_only_read(
    cache: Path, of_layer_6: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(of_layer_6.path, tmp_path / "run")
    as_of_old(run, "1")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = train_head(made(cache, run, *ENOUGH, layer="6"))
    assert again.metrics == of_layer_6.metrics
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(UsageError, match="another run, with layer = '6' and not '12'"):
        train_head(made(cache, run, *ENOUGH, layer="12"))


def test_an_interrupted_old_run_is_continued(cache: Path, of_layer_6: Run, tmp_path: Path) -> None:
    settings = made(cache, tmp_path / "run", *ENOUGH, "save_every=0", layer="6")
    (job,) = runner.plan_run(settings).jobs()

    def interrupt(epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, interrupt)
    as_of_old(tmp_path / "run", "1")
    assert results(train_head(settings)) == results(of_layer_6)


def test_an_old_run_on_other_features_is_another_run(cache: Path, tmp_path: Path) -> None:
    """Its positions are not looked up among the layers of the other features."""
    run = train_head(made(cache, tmp_path / "run", "epochs=1", *FORMER, layer="12"))
    as_of_old(run.path, "2")
    other = made_cache(tmp_path / "other", official(), layers=(0, 1))
    with pytest.raises(UsageError, match="belongs to another run"):
        train_head(made(other, run.path, "epochs=1", *FORMER, layer="1"))


@pytest.mark.parametrize("layer", ["mix", "last", "6"])
def test_the_name_of_the_folder_is_the_old_one(cache: Path, tmp_path: Path, layer: str) -> None:
    """A hash of the configuration in its old format, without the place of the cache."""
    settings = made(cache, tmp_path, "epochs=1", *FORMER, layer=layer)
    run = train_head(replace(settings, out=None, runs=tmp_path / "runs"))
    config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
    del config["cache"], config["format"]
    name = hashlib.sha256(tomli_w.dumps(config).encode()).hexdigest()[:8]
    assert run.path.name == f"made-up-linear-{name}"
    as_of_old(run.path, None if layer.isalpha() else "1")
    before = read_json(run.path / "metrics.json")
    again = train_head(replace(settings, out=None, runs=tmp_path / "runs"))
    assert (again.path, again.metrics) == (run.path, before)
