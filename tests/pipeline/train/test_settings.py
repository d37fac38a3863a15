"""Valid settings are used; invalid settings are refused before a folder is made."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mser.pipeline.errors import UsageError
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.train_runs import made, made_cache, official, small

# Overrides ----------------------------------------------------------------------------------------


def overridden(*assignments: str, head: str = "linear") -> TrainSettings:
    settings = TrainSettings(head, "made-up", Path("cache"), {"speech": None})
    return settings.with_overrides(assignments)


def test_overrides_are_typed() -> None:
    settings = overridden(
        "epochs=7",
        "learning_rate=1e-2",
        "weight_decay=0",
        "monitor=ua",
        "head.dropout=0.5",
        "head.depths=[0.5, 1.0]",
        "head.supervised=true",
        "head.name_of=words with = signs",
    )
    assert (settings.epochs, settings.learning_rate, settings.weight_decay) == (7, 0.01, 0)
    assert settings.monitor == "ua"
    assert settings.head_options == {
        "dropout": 0.5,
        "depths": [0.5, 1.0],
        "supervised": True,
        "name_of": "words with = signs",
    }
    assert overridden() == TrainSettings("linear", "made-up", Path("cache"), {"speech": None})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs", "write it as key=value"),
        ("epochs=many", "epochs = 'many': give a whole number"),
        ("epochs=1.5", "a whole number"),
        ("epochs=true", "a whole number"),
        ("epochs=", "a whole number"),
        ("epochs=0", "epochs = 0: give 1 or more"),
        ("patience=-1", "1 or more"),
        ("batch_size=0", "1 or more"),
        ("learning_rate=fast", "learning_rate = 'fast': give a number"),
        ("learning_rate=false", "a number"),
        ("learning_rate=0", "more than 0"),
        ("warmup=1", "less than 1"),
        ("learning_rate=nan", "a finite number"),
        ("monitor=3", "a text in quotation marks"),
        ("monitor=weighted-f1", "did you mean 'weighted_f1'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("lr=3", "unknown setting 'lr'"),
        ("seeds=3", "unknown setting 'seeds'"),
    ],
)
def test_a_bad_override_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        overridden(assignment)


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("assignment", ["weight_decay=-1", "weight_decay=nan"])
def test_a_weight_decay_below_zero_is_refused(tmp_path: Path, assignment: str) -> None:
    cache = made_cache(tmp_path / "cache", official())
    with pytest.raises(UsageError, match="weight_decay"):
        train_head(made(cache, tmp_path / "run", assignment))


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), (2**70,)])
def test_invalid_seeds_are_refused(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    cache = made_cache(tmp_path / "cache", official())
    with pytest.raises(UsageError, match="seeds"):
        train_head(made(cache, tmp_path / "run", seeds=seeds))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "liner"}, "unknown head 'liner': did you mean 'linear'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"protocol": "oficial"}, "did you mean 'official'"),
        ({"protocol": "leave-one-session-out"}, "needs the column session"),
        ({"head": "hbf", "layer": "last"}, "depths"),
        ({"head_options": {"drop_out": 0.1}}, "did you mean 'dropout'"),
        ({"head_options": {"dropout": "much"}}, "'dropout' must be of type float"),
        ({"head_options": {"dropout": 2}}, r"dropout must be in \[0, 1\)"),
        ({"head_options": {"dims": 3}}, "head.dims is not an option"),
        ({"head_options": {"layer": "last"}}, "head.layer is not an option"),
        ({"head_options": {"": 3}}, "unknown linear option"),
    ],
)
def test_invalid_settings_are_refused_before_a_folder_is_made(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    cache = made_cache(tmp_path / "cache", official())
    with pytest.raises(UsageError, match=message):
        train_head(made(cache, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("layer", "weights"), [("last", 0), ("0", 0), ("mix", 1)])
def test_the_layer_is_chosen(tmp_path: Path, layer: str, weights: int) -> None:
    cache = made_cache(tmp_path / "cache", official())
    done = train_head(made(cache, tmp_path / "run", layer=layer))
    kept = load_file(done.path / "checkpoints" / "official-seed0.safetensors")
    assert sum(name.startswith("mixes") for name in kept) == weights
    config = tomllib.loads((done.path / "config.toml").read_text(encoding="utf-8"))
    assert config["layer"] == layer


def test_one_modality_alone(filled_cache: Path, tmp_path: Path) -> None:
    settings = small("linear", filled_cache, tmp_path / "run", encoders={"text": None})
    done = train_head(settings)
    config = tomllib.loads((done.path / "config.toml").read_text(encoding="utf-8"))
    assert list(config["encoders"]) == ["text"]
    (weights, *_) = sorted((done.path / "checkpoints").iterdir())
    assert not any("speech" in name for name in load_file(weights))
