"""Presets and ablations: those of mser can be run, and so can a user's own."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mser.heads import HEADS, Head, build_head
from mser.pipeline.errors import UsageError
from mser.pipeline.preset_files import preset_names
from mser.pipeline.runs import ablate, ablation
from mser.pipeline.train import TrainSettings, combined, preset_of, settings_of
from mser.pipeline.train.layers import layer_positions
from mser.pipeline.train.presets import read
from mser.tests.conftest import Call
from mser.tests.support.train_runs import made_cache, official

PRESETS, ABLATIONS = preset_names("presets"), preset_names("ablations")
# The paper's Tables II and III, in %: system → WA, UA.
MGCMA_TABLE_2 = {
    "S0 all": (78.87, 80.24),
    "S1 no DAM": (77.78, 79.07),
    "S2 no TAM": (78.00, 79.14),
    "S3 no IAM": (78.30, 79.38),
    "S4 none": (76.20, 77.62),
}
MGCMA_TABLE_3 = {
    "S0 DAM+TAM+IAM": (78.87, 80.24),
    "S5 DAM+IAM+TAM": (78.76, 79.48),
    "S6 IAM+DAM+TAM": (77.60, 78.60),
    "S7 IAM+TAM+DAM": (78.71, 79.81),
    "S8 TAM+DAM+IAM": (77.33, 78.75),
    "S9 TAM+IAM+DAM": (76.88, 78.43),
}
PLACE: dict[str, Any] = {"cache": "cache", "encoders": {}}


def settings(name: str, *assignments: str, **given: Any) -> TrainSettings:
    return settings_of(preset_of(name) | given, **PLACE).with_overrides(assignments)


def built(wanted: TrainSettings) -> Head:
    """Return the head very narrow, with all its other options."""
    narrow = {"width": 24, "projection": 8}  # 24 is divided by every number of attention heads
    options = {k: narrow.get(k, value) for k, value in wanted.head_options.items()}
    modalities = list(wanted.encoders)
    return build_head(
        wanted.head,
        dict.fromkeys(modalities, 8),
        4,
        dict.fromkeys(modalities, 13),
        layer_positions(wanted.layer, dict.fromkeys(modalities, range(13))),
        **options,
    )


# Of mser ------------------------------------------------------------------------------------------


def test_the_expected_presets_and_ablations_exist() -> None:
    for name in ("mgcma-iemocap", "hbf-meld", "hbaf-meld", "query-iemocap", "linear-iemocap"):
        assert name in PRESETS
    for name in ("mgcma-table2", "mgcma-table3", "hbf-parts", "hbaf-parts", "query-masking"):
        assert name in ABLATIONS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_an_existing_head_and_its_options(name: str) -> None:
    wanted = settings(name)
    assert wanted.head in HEADS
    assert wanted.epochs > 1
    built(wanted)
    said = read(name, "presets")
    for key in ("head", "dataset", "protocol", "epochs", "learning_rate"):
        assert getattr(wanted, key) == said[key]
    assert dict(wanted.head_options) == said.get("head_options", {})


def test_the_preset_of_mgcma_has_the_settings_of_the_paper() -> None:
    wanted = settings("mgcma-iemocap")
    assert (wanted.batch_size, wanted.epochs, wanted.learning_rate) == (4, 100, 1e-5)
    assert (wanted.optimizer, wanted.classes) == ("adam", "4")
    assert wanted.protocol == "leave-one-session-out"
    assert wanted.head_options == {
        "modules": ["distribution", "token", "instance"],
        "width": 768,
        "n_attention_heads": 12,
        "n_blocks": 6,
        "temperature": 0.07,
    }


@pytest.fixture
def planned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[ablation.Ablation, list[TrainSettings]]]:
    """Run an ablation without the training."""

    def plan(name: str, given: dict[str, Any] | None = None, *assignments: str) -> Any:
        asked: list[TrainSettings] = []
        monkeypatch.setattr(ablation, "train_heads", lambda wanted, say: asked.extend(wanted))
        monkeypatch.setattr(ablation, "_require_encoders", lambda *_: None)  # there is no cache
        return ablate(name, given or {}, assignments, tmp_path, **PLACE), asked

    return plan


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_system_of_every_ablation_can_be_built(name: str, planned: Any) -> None:
    table, asked = planned(name)
    said = read(name, "ablations")
    assert [row.system.name for row in table.rows if not row.missing] == [
        system["name"] for system in said["systems"]
    ]
    assert len({str(system.out) for system in asked}) == len(asked)
    for system in asked:
        assert system.out is not None
        built(system)
    # Two systems differ only in their settings.
    assert len({str(replace(system, out=None).as_config()) for system in asked}) == len(asked)


@pytest.mark.parametrize("name", ["hbf-parts", "hbf-modalities"])
def test_the_systems_of_hbf_make_the_same_number_of_steps(name: str, planned: Any) -> None:
    _, asked = planned(name)
    steps = {len(built(system).turns()) * system.epochs for system in asked}  # times the batches
    assert steps == {120 if name == "hbf-parts" else 180}
    assert all(system.patience > system.epochs for system in asked)  # none stops early
    same = {(system.batch_size, system.accumulate, system.learning_rate) for system in asked}
    assert len(same) == 1
    if name == "hbf-parts":
        assert {system.head_options["mb"] for system in asked} == {True, False}
    else:
        three = ("speech", "text", "vision")
        every = {part for count in (1, 2, 3) for part in combinations(three, count)}
        assert {tuple(system.encoders) for system in asked} == every
        assert len(asked) == len(every) == 7


def test_crema_d_is_trained_on_speech_and_vision() -> None:
    """Its text is one of twelve sentences, each said in every emotion."""
    assert set(settings("hbf-crema-d").encoders) == {"speech", "vision"}


def test_a_preset_names_its_modalities_or_has_speech_and_text() -> None:
    assert set(settings("hbf-meld").encoders) == {"speech", "text"}
    assert set(settings("hbf-meld-three").encoders) == {"speech", "text", "vision"}


def test_the_six_classes_of_iemocap_are_tested_on_the_fifth_session() -> None:
    wanted = settings("hbaf-iemocap6")
    assert (wanted.classes, wanted.protocol) == ("6", "hold-out:session=Ses05")
    four = settings("hbaf-iemocap")
    assert wanted == replace(four, classes=wanted.classes, protocol=wanted.protocol)


@pytest.mark.parametrize(
    ("name", "expected"), [("mgcma-table2", MGCMA_TABLE_2), ("mgcma-table3", MGCMA_TABLE_3)]
)
def test_the_scores_of_the_paper_are_in_the_table(
    name: str, expected: dict[str, tuple[float, float]], planned: Any
) -> None:
    table, asked = planned(name)
    short = {"distribution": "DAM", "token": "TAM", "instance": "IAM"}
    for row, wanted in zip(table.rows, asked, strict=True):
        assert (row.system.paper["wa"], row.system.paper["ua"]) == expected[row.system.name]
        modules = [short[module] for module in wanted.head_options["modules"]]
        if name == "mgcma-table3":
            assert row.system.name.split()[1] == "+".join(modules)
        elif "no " in row.system.name:
            assert set(short.values()) - set(modules) == {row.system.name[-3:]}
        else:
            assert len(modules) == (0 if "none" in row.system.name else 3)
    markdown = table.markdown()
    for system, (wa, ua) in expected.items():
        assert f"\n| {system} | – | {wa:.2f} | – | {ua:.2f} |" in markdown


def test_options_of_the_user_apply_to_all_systems(planned: Any) -> None:
    given = {"dataset": "mine", "seeds": (1, 2), "protocol": "official", "classes": "4"}
    _, asked = planned("mgcma-table2", given, "epochs=3", "head.width=24")
    assert {(system.dataset, system.seeds, system.epochs) for system in asked} == {
        ("mine", (1, 2), 3)
    }
    assert all(system.head_options["width"] == 24 for system in asked)
    assert len({tuple(system.head_options["modules"]) for system in asked}) == 5


# Overriding a preset -----------------------------------------------------------------------------


def test_options_of_the_user_override_the_preset() -> None:
    wanted = settings("hbf-meld", "epochs=3", "head.beta=0.5", dataset="mine", seeds=(4,))
    assert (wanted.head, wanted.dataset, wanted.seeds, wanted.epochs) == ("hbf", "mine", (4,), 3)
    assert wanted.head_options["beta"] == 0.5
    assert wanted.head_options["width"] == 256  # from the preset
    assert wanted.schedule == "cosine"


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("hbf-meld", {}, "--protocol"),
        ("hbf-iemocap", {}, "--protocol and --classes"),
        ("hbf-iemocap", {"protocol": "official"}, "--classes"),
    ],
)
def test_a_preset_is_refused_for_another_dataset(
    name: str, given: dict[str, Any], options: str
) -> None:
    own = preset_of(name)["dataset"]
    message = f"the preset is for the dataset '{own}': for 'mine', also give {options}, or copy"
    with pytest.raises(UsageError, match=message):
        combined(preset_of(name), {"dataset": "mine", **given})


def test_a_preset_is_used_for_another_dataset_with_its_protocol_and_classes() -> None:
    given = {"dataset": "mine", "protocol": "official", "classes": "6"}
    wanted = settings_of(combined(preset_of("hbf-iemocap"), given), **PLACE)
    assert (wanted.dataset, wanted.protocol, wanted.classes) == ("mine", "official", "6")
    same = combined(preset_of("hbf-iemocap"), {"dataset": "iemocap"})
    assert (same["protocol"], same["classes"]) == ("leave-one-session-out", "4")


def test_a_preset_for_every_dataset_leaves_the_protocol_to_it(tmp_path: Path) -> None:
    wanted = settings_of(combined(preset_of("synthetic"), {"dataset": "mine"}), **PLACE)
    assert (wanted.dataset, wanted.protocol, wanted.epochs) == ("mine", None, 20)
    # A preset without a dataset is for every dataset, with its protocol.
    (tmp_path / "own.toml").write_text('head = "linear"\nprotocol = "official"')
    found = combined(preset_of(str(tmp_path / "own.toml")), {"dataset": "mine"})
    assert found["protocol"] == "official"


def test_unknown_names_come_with_suggestions() -> None:
    with pytest.raises(UsageError, match="did you mean 'hbf-meld'"):
        preset_of("hbf-medl")
    with pytest.raises(UsageError, match="did you mean 'mgcma-table2'"):
        read("mgcma-table-2", "ablations")
    with pytest.raises(UsageError, match=r"preset none\.toml: No such file"):
        preset_of("none.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('head = "linear"\nepoch = 3', "unknown key in preset .*: did you mean 'epochs'"),
        ('head = "linear"\n[head_option]\nwidth = 3', "did you mean 'head_options'"),
        ("head = linear", "is not TOML"),
        ("head = 3", "head = 3: give a text"),
        ('head = "linear"\nclasses = 4', "classes = 4: give a text"),
        ('head = "linear"\nseeds = 3', "seeds = 3: give a list"),
        ('head = "linear"\nmodalities = "speech"', "modalities = 'speech': give a list"),
        ('head = "linear"\nhead_options = "width"', "head_options = 'width': give a table"),
        (
            'head = "linear"\ndataset = "x"\nepochs = "many"',
            r"own\.toml: epochs = 'many': give a whole number",
        ),
        ('head = "linear"', "no dataset given: give --dataset"),
        ('dataset = "made-up"', "no head given: give --head"),
    ],
)
def test_an_invalid_preset_is_one_sentence(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "own.toml").write_text(content)
    with pytest.raises(UsageError, match=says) as raised:
        settings(str(tmp_path / "own.toml"))
    assert "\n" not in str(raised.value)


def test_a_users_own_preset_through_the_command_line(call: Call, tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache", official())
    (tmp_path / "own.toml").write_text(
        'head = "linear"\ndataset = "made-up"\nmodalities = ["speech"]\nseeds = [3]\n'
        'layer = "last"\nepochs = 2\nschedule = "linear"\n[head_options]\ndropout = 0.25\n'
    )
    typed = ["train-head", "--cache", cache, "--preset", "own.toml", "--out", "run"]
    code, out, err = call(*typed, "--seeds", "5", "--set", "epochs=1", "--device", "cpu")
    assert code == 0, err
    assert "linear on made-up, official" in out
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    asked = {"seeds": [5], "epochs": 1, "layer": "last", "schedule": "linear"}
    assert {key: config[key] for key in asked} == asked
    assert config["head_options"] == {"dropout": 0.25}

    code, out, err = call("train-head", "--cache", cache, "--preset", "linear-iemocp")
    assert (code, out) == (2, "")
    assert "did you mean 'linear-iemocap'" in err
    assert err.count("\n") == 1
