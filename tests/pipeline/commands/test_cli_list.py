"""``mser list``, ``python -m mser``, and what the help says of settings."""

import json
from inspect import signature
from pathlib import Path

import pytest

from mser.heads import HEADS
from mser.pipeline.commands.catalogue import KINDS
from mser.pipeline.commands.options import SETTINGS
from mser.pipeline.corpora import CORPORA
from mser.pipeline.encoders import FAMILIES
from mser.pipeline.evaluation.numbers import NUMBER_METRICS
from mser.pipeline.evaluation.registry import METRICS
from mser.pipeline.evaluation.scorers import VOTE_METRICS
from mser.pipeline.evaluation.several_labels import LABEL_METRICS
from mser.pipeline.preset_files import preset_names
from mser.pipeline.protocols.protocols import PROTOCOLS
from mser.pipeline.train.settings import TUNABLE
from mser.tests.conftest import Call
from mser.tests.support.installed_plugins import install

EXPECTED = {
    "heads": set(HEADS),
    "corpora": set(CORPORA),
    "encoders": set(FAMILIES),
    "protocols": set(PROTOCOLS),
    "presets": set(preset_names("presets")),
    "ablations": set(preset_names("ablations")),
    "reproductions": {"emobox-iemocap", "mgcma-table2", "superb-er"},
    "settings": set(TUNABLE),
    "formats": {"hdf5", "zarr"},
    "metrics": {*METRICS, *NUMBER_METRICS, *VOTE_METRICS, *LABEL_METRICS},
    "targets": {"emotion", "valence", "arousal", "dominance", "votes", "labels"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lists_all_its_names_with_a_text(call: Call, kind: str) -> None:
    code, out, err = call("list", kind, "--json")
    assert (code, err) == (0, "")
    items = json.loads(out)
    assert {item["name"] for item in items} == EXPECTED[kind]
    assert all(item["text"] for item in items)
    assert len(call("list", kind)[1].splitlines()) == len(items)


@pytest.mark.parametrize("kind", ["presets", "ablations", "reproductions"])
def test_a_file_is_listed_with_a_whole_sentence(call: Call, kind: str) -> None:
    for item in json.loads(call("list", kind, "--json")[1]):
        assert item["text"].endswith((".", "?")), item


def test_plugins_are_listed_without_running_their_code(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mser_own_listed", "2.0")
    (tmp_path / "site" / "mser_own_listed.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for kind, name in (("heads", "late-fusion"), ("metrics", "lowest_recall"), ("corpora", "own")):
        items = {item["name"]: item for item in json.loads(call("list", kind, "--json")[1])}
        assert items[name]["origin"] == "mser-own 2.0"
        assert items[name]["text"].startswith("mser_own_listed:")


def test_a_name_shows_its_options(call: Call) -> None:
    code, out, _ = call("list", "heads", "hbf", "--json")
    assert code == 0
    options = [p.name for p in signature(HEADS["hbf"]).parameters.values() if p.kind.value == 3]
    assert [item["name"] for item in json.loads(out)] == options
    assert "n_mels" in call("list", "encoders", "log-mel")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["headz"], "unknown kind of list 'headz': did you mean 'heads'?"),
        (["heads", "hbff"], "unknown head 'hbff': did you mean 'hbf'?"),
        (["settings", "epochs"], "mser list settings takes no name"),
        (["zzz"], "unknown kind of list 'zzz' (known: ablations,"),
    ],
)
def test_a_wrong_name_is_one_sentence(call: Call, arguments: list[str], says: str) -> None:
    code, out, err = call("list", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_the_help_of_train_head_has_every_setting(call: Call) -> None:
    assert set(SETTINGS) == set(TUNABLE)
    words = " ".join(call("train-head", "--help")[1].split())
    assert ", ".join(SETTINGS[:3]) in words
    assert "--install-completion" in call("--help")[1]


def test_python_m_mser_is_the_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy  # noqa: PLC0415
    import sys  # noqa: PLC0415

    monkeypatch.setattr(sys, "argv", ["mser", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("mser", run_name="__main__")
    assert end.value.code in (0, None)
