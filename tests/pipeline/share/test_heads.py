"""Push a head, pull it elsewhere, and predict with it, against a small hub on this machine."""

import json
import shutil
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from huggingface_hub import constants

from mser.pipeline.corpora import synthetic
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.hub_server import HubState
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import made, made_cache, official, read_json, small

REPO = "someone/small-linear"
KEY = f"models/{REPO}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> Path:
    """A finished run with two seeds. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    return train_head(small("linear", filled_cache, out, "epochs=2", seeds=(0, 3))).path


def test_a_pulled_head_predicts_the_same_bits(
    call: Call, hub: HubState, run: Path, corpus_root: Path, encoders: dict[str, str]
) -> None:
    code, out, err = call("push", run, REPO, "--license", "mit")
    assert (code, err) == (0, "")
    assert REPO in out
    assert hub.created[0]["visibility" if "visibility" in hub.created[0] else "private"]
    trainings = read_json(run / "metrics.json")["folds"]
    checkpoints = {f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir()}
    assert len(checkpoints) == len(trainings)
    files = hub.repositories[KEY]
    assert set(files) == checkpoints | {
        "README.md",
        "config.toml",
        "metrics.json",
        "encoders.json",
    }

    moved = shutil.copytree(run, Path("original"))
    code, out, err = call("pull", REPO, "pulled")
    assert (code, err) == (0, "")
    assert "pulled: linear on synthetic" in out
    for name in checkpoints:
        assert Path("pulled", name).read_bytes() == (run / name).read_bytes()
    clip = synthetic.load(corpus_root).utterances[0]
    own = [f"--{m}-encoder={folder}" for m, folder in encoders.items()]
    for asked in (["--audio", clip.audio, "--text", clip.text], ["--text", "no more"]):
        results = []
        for folder in (moved, shutil.copytree("pulled", f"elsewhere-{len(asked)}")):
            code, out, err = call("predict", folder, *asked, *own, "--json")
            assert code == 0, err
            results.append(json.loads(out))
        first, second = results
        assert first["checkpoints"] == second["checkpoints"]
        assert first["probabilities"] == second["probabilities"]


def test_the_card_and_the_files_name_what_matters_and_no_utterance(
    call: Call, hub: HubState, run: Path
) -> None:
    assert call("push", run, REPO, "--public")[0] == 0
    files = hub.repositories[KEY]
    card = files["README.md"].decode()
    front, text = card.split("---\n", 2)[1:]
    described = yaml.safe_load(front)
    assert described["license"] == "other"
    assert described["library_name"] == "mser"
    metrics = read_json(run / "metrics.json")
    low, high = metrics["aggregate"]["wa"]["pooled_ci95"]
    config = (run / "config.toml").read_text()
    for known in (
        f"{100 * metrics['aggregate']['wa']['pooled']:.1f}",
        f"{100 * low:.1f} – {100 * high:.1f}",
        metrics["protocol"],
        "**frozen**",
        "Intended use",
        "made by mser",  # the licence of the synthetic corpus
        *(record["identity"]["weights"] for record in json.loads(files["encoders.json"])),
        *(record["encoder"] for record in json.loads(files["encoders.json"])),
    ):
        assert known in text, known
    # Neither what the corpus holds nor where the run was made.
    ids = [id for fold in read_json(run / "folds.json")["folds"] for id in fold["test"]]
    everything = b"\n".join(files.values()).decode(errors="replace")
    cache = next(line for line in config.splitlines() if line.startswith("cache")).split('"')[1]
    for private in (*ids, str(run), cache):
        assert private not in everything, private


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("encoders.json", None, "holds no head that mser pushed: it has no encoders.json"),
        ("encoders.json", b"[]", "encoders.json and config.toml differ"),
        ("encoders.json", b"{", "is damaged"),
        ("metrics.json", b'{"folds": []}', "there is no training"),
        ("config.toml", b"head = ", "is damaged"),
        ("checkpoints", b"\x80\x04 a pickle", "is missing or is not safetensors"),
        ("checkpoints", None, "is missing or is not safetensors"),
    ],
)
def test_a_repository_that_is_not_a_head_is_one_sentence(
    call: Call, hub: HubState, run: Path, name: str, content: bytes | None, says: str
) -> None:
    assert call("push", run, REPO)[0] == 0
    files = hub.repositories[KEY]
    wanted = next(file for file in files if file.startswith(name))
    if content is None:
        del files[wanted]
    else:
        files[wanted] = content
    code, out, err = call("pull", REPO, "pulled")
    assert (code, out) == (2 if "no head" in says else 1, "")
    assert is_one_sentence(err), err
    assert says in err
    assert [path.name for path in Path().iterdir()] == []


def test_nothing_else_is_fetched(call: Call, hub: HubState, run: Path) -> None:
    """A pickle, code, or a path that leads outside stays on the hub."""
    assert call("push", run, REPO)[0] == 0
    foreign = ("pytorch_model.bin", "head.py", "../outside.toml", "checkpoints/more.pkl")
    hub.repositories[KEY] |= dict.fromkeys(foreign, b"cos\nsystem\n")
    code, _, err = call("pull", REPO, "pulled")
    assert code == 0, err
    found = {path.name for path in Path().rglob("*")}
    assert not found & {name.rpartition("/")[2] for name in foreign}


def test_the_code_of_a_pulled_plug_in_needs_consent(
    call: Call, hub: HubState, run: Path, own_home: None
) -> None:
    assert call("push", run, REPO)[0] == 0
    Path("mine.py").write_text("raise SystemExit('ran')\n")
    files = hub.repositories[KEY]
    spec = f"{Path('mine.py').absolute()}:Mine"
    config = files["config.toml"].decode().replace('head = "linear"', f'head = "{spec}"')
    plugin = f'\n[plugins.head]\nspec = "{spec}"\nsha256 = "00"\n'
    files["config.toml"] = (config + plugin).encode()
    assert call("pull", REPO, "pulled")[0] == 0
    code, out, err = call("predict", "pulled", "--text", "oh")
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert "whose code you have not used before" in err


def test_a_hub_that_refuses_is_one_sentence(call: Call, hub: HubState, run: Path) -> None:
    for command, code, says in (
        (("pull", "someone/else", "pulled"), 2, "has no 'someone/else' that you may read"),
        (("pull", "some one/else", "pulled"), 2, "is not a name on the hub"),
        (("pull", "a/b/c", "pulled"), 2, "is not a name on the hub"),
        (("pull", REPO, "."), 2, "has no 'someone/small-linear'"),
    ):
        ended, out, err = call(*command)
        assert (ended, out) == (code, ""), err
        assert is_one_sentence(err), err
        assert says in err
    Path("full").mkdir()
    Path("full/file").touch()
    code, _, err = call("pull", REPO, "full")
    assert code == 2
    assert "'full' already exists" in err
    hub.refuses = 403
    code, _, err = call("push", run, REPO)
    assert code == 2
    assert is_one_sentence(err), err
    assert "does not let you write" in err


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    call: Call, hub: HubState, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for command in (("push", run, REPO), ("pull", REPO, "pulled")):
        code, out, err = call(*command)
        assert (code, out) == (1, "")
        assert is_one_sentence(err), err
        assert "could not be reached" in err


def test_features_that_were_imported_and_unfinished_runs_are_refused(
    call: Call, hub: HubState, tmp_path: Path
) -> None:
    cache = made_cache(tmp_path / "cache", official())
    made_run = train_head(made(cache, tmp_path / "run", "epochs=1")).path
    shutil.rmtree(cache)
    code, _, err = call("push", made_run, REPO)
    assert code == 1
    assert is_one_sentence(err), err
    code, _, err = call("push", tmp_path / "absent", REPO)
    assert code == 2
    assert is_one_sentence(err), err
    assert not hub.repositories
