"""A run from before an option is read with the value that means what its head did."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from mser.pipeline.errors import UsageError
from mser.pipeline.runs import evaluate
from mser.pipeline.train import Run, TrainSettings, train_head
from mser.tests.support.talks import talks
from mser.tests.support.train_runs import made, made_both, made_cache, official, tiny

FORMER_HBAF = ("text_context", "speakers", "unlabelled_turns", "false_negatives")
# The values that these options, and the inputs, have in an older run.
OFF_HBAF = [
    *(f"head.{option}=false" for option in FORMER_HBAF[:3]),
    "head.false_negatives=keep",
    "standardise=false",
]
OLD_HBF = ("head.false_negatives=keep", "standardise=false")


def as_of_format(number: int, run: Run, *options: str, **changes: Any) -> None:
    """Give a run the configuration that was written before the options existed."""
    path = run.path / "config.toml"
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    assert config["format"] == 5
    for option in options:
        del config["head_options"][option]
    changed = {**config, **changes, "format": number}
    kept = {key: value for key, value in changed.items() if value is not None}
    path.write_text(tomli_w.dumps(kept), encoding="utf-8")


def test_hbaf_reads_what_it_read_before(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", talks())
    settings = tiny("hbaf", cache, tmp_path / "run", *OFF_HBAF, layer="text=last")
    run = train_head(settings)
    as_of_format(2, run, *FORMER_HBAF, layer=None)
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    assert train_head(settings).metrics == run.metrics  # the folder is that of these settings
    now = tiny("hbaf", cache, tmp_path / "run")
    with pytest.raises(UsageError, match="belongs to another run, with "):
        train_head(now)


def test_hbf_without_mrc_and_mb_has_no_uni_modal_loss(tmp_path: Path) -> None:
    cache = made_both(tmp_path / "cache", official())
    plain = ("head.mrc=off", "head.mb=false")
    settings = tiny("hbf", cache, tmp_path / "run", *plain, *OLD_HBF, "head.own_weight=0.0")
    run = train_head(settings)
    as_of_format(2, run, "own_weight", "false_negatives")
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    assert train_head(settings).metrics == run.metrics
    # With MRC or MB, the option has always had its meaning.
    full = train_head(tiny("hbf", cache, tmp_path / "full", *OLD_HBF))
    as_of_format(2, full, "false_negatives")
    assert evaluate(full.path, device="cpu").facts["aggregate"] == full.metrics["aggregate"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, "text=last"),
        ("speech=0,1", "speech=0,1,text=last"),
        ("text=0", "text=0"),
        ("mix", "mix"),
    ],
)
def test_hbaf_read_the_last_layer_of_text_by_default(
    tmp_path: Path, given: str | None, read: str
) -> None:
    cache = made_both(tmp_path / "cache", talks())
    settings = tiny("hbaf", cache, tmp_path / "run", layer=read)
    run = train_head(settings)
    as_of_format(4, run, layer=given)
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    assert train_head(settings).metrics == run.metrics


@pytest.mark.parametrize(
    ("layers", "read"), [((0, 6, 12), "speech=0,6,12"), ((2, 4, 6, 8, 9), "speech=2,4,6,8")]
)
def test_hbaf_reads_the_first_cached_layers_as_before(
    tmp_path: Path, layers: tuple[int, ...], read: str
) -> None:
    cache = made_cache(tmp_path / "cache", official(), layers=layers)
    made_of: TrainSettings = made(
        cache, tmp_path / "run", "epochs=1", "head.width=8", *OFF_HBAF, head="hbaf", layer=read
    )
    run = train_head(made_of)
    as_of_format(2, run, *FORMER_HBAF, layer=None)
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]
    assert train_head(made_of).metrics == run.metrics
