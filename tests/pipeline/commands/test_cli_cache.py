"""`mser cache …` as a user types it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mser.cache import FeatureCache
from mser.tests.conftest import Call, Mser, run_console_script
from mser.tests.support.cache_entries import array, fill, path_of, same_bits


@pytest.fixture
def mser(call: Call) -> Mser:
    """Call the command line in this process, which saves the imports of a new process."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], *call(*arguments))

    return run


@pytest.fixture
def cache(filled_cache: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filled_cache, tmp_path / "shared")


def flip_a_byte(entry: Path) -> Path:
    """Damage the first shard of an entry in the middle of its features."""
    shard = min(path for path in (entry / "shards").iterdir())
    data = shard / "hidden_states" / "c" / "0" / "0" / "0"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    return shard


def test_ls_and_info(mser: Mser, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = mser("cache", "ls", "--cache", cache)
    assert (listed.returncode, listed.stderr) == (0, "")
    for word in ("synthetic", "speech", "text", "small-wav2vec2", "96", "float16", "MB"):
        assert word in listed.stdout
    as_json = json.loads(mser("cache", "ls", "--cache", cache, "--json").stdout)
    assert {one["modality"]: one["utterances"] for one in as_json["entries"]} == {
        "speech": 96,
        "text": 96,
    }
    chosen = ("--dataset", "synthetic", "--modality", "speech")
    shown = mser("cache", "info", *chosen, "--cache", cache)
    assert shown.returncode == 0
    for word in ("weights: ", "sample_rate: 16000", "torch: ", "command: ", "host: ", "run 1 of 1"):
        assert word in shown.stdout
    entry = FeatureCache(cache).open("synthetic", modality="speech")
    monkeypatch.setenv("MSER_CACHE", str(cache))
    found = json.loads(mser("cache", "info", *chosen, "--json").stdout)
    assert found["identity"] == entry.spec.identity
    assert found["runs"] == entry.provenance
    assert found["shards"] == {"zarr, compression none": len(entry.index.shards())}


def test_info_of_a_dataset_shows_all_its_entries(mser: Mser, cache: Path) -> None:
    typed = ("cache", "info", "--dataset", "synthetic", "--cache", cache)
    done = mser(*typed)
    assert (done.returncode, done.stderr) == (0, "")
    assert "modality: speech" in done.stdout
    assert "modality: text" in done.stdout
    shown = json.loads(mser(*typed, "--json").stdout)
    entries = FeatureCache(cache).entries("synthetic")
    assert [one["key"] for one in shown] == [entry.spec.key for entry in entries]


def test_an_ambiguous_entry_is_an_error(mser: Mser, cache: Path) -> None:
    done = mser("cache", "export", "--dataset", "synthetic", "--cache", cache, "--to", "out")
    assert done.returncode == 1
    assert "choose one by its name or key" in done.stderr
    assert done.stderr.count("\n") == 1


def test_verify_names_the_damage_and_extract_computes_it_again_after_repair(
    mser: Mser, cache: Path, corpus_root: Path, encoders: dict[str, str]
) -> None:
    whole = mser("cache", "verify", "--cache", cache)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.count("all as written") == 2 * 2  # with the pooled features

    entry = FeatureCache(cache).open("synthetic", modality="speech")
    before = {id: np.array(entry[id]) for id in entry.ids}
    shard = flip_a_byte(path_of(entry))
    damaged = mser("cache", "verify", "--cache", cache)
    assert damaged.returncode == 1
    assert f"{shard.name}: its bytes are not those that were written" in damaged.stdout
    assert "1 damaged" in damaged.stdout
    (lost,) = [line for line in damaged.stdout.splitlines() if "lost: " in line]
    (id,) = lost.split("lost: ")[1].split(", ")
    assert mser("cache", "verify", "--modality", "text", "--cache", cache).returncode == 0

    repaired = mser("cache", "verify", "--repair", "--cache", cache)
    assert repaired.returncode == 0
    assert id not in FeatureCache(cache).open("synthetic", modality="speech")
    again = mser(
        *("extract", "--dataset", "synthetic", "--root", corpus_root, "--cache", cache),
        *("--speech-encoder", encoders["speech"], "--modalities", "speech", "--workers", 0),
    )
    assert "1 new" in again.stdout
    after = FeatureCache(cache).open("synthetic", modality="speech")
    assert {one: after[one].tobytes() for one in after.ids} == {
        one: states.tobytes() for one, states in before.items()
    }
    assert mser("cache", "verify", "--cache", cache).returncode == 0


def test_convert_and_gc_keep_the_features(mser: Mser, cache: Path) -> None:
    before = FeatureCache(cache).open("synthetic", modality="speech")
    chosen = ("--dataset", "synthetic", "--modality", "speech", "--cache", cache)
    done = mser("cache", "convert", *chosen, "--to", "hdf5", "--compression", "zstd")
    assert done.returncode == 0, done.stderr
    assert "written again as hdf5, compression zstd" in done.stdout

    young = mser("cache", "gc", "--cache", cache)
    assert "nothing to delete" in young.stdout  # it may be in use
    shown = mser("cache", "gc", "--older-than", 0, "--cache", cache)
    assert "can be deleted with --yes" in shown.stdout
    assert list(path_of(before).glob("shards/*/zarr.json"))
    mser("cache", "gc", "--older-than", 0, "--yes", "--cache", cache)
    assert {path.suffix for path in path_of(before).glob("shards/*")} == {".h5"}
    after = FeatureCache(cache).open("synthetic", modality="speech")
    for id in before.ids:
        assert same_bits(after[id], before[id])
    assert "nothing to delete" in mser("cache", "gc", "--cache", cache).stdout


def test_import_reads_an_export(mser: Mser, cache: Path, tmp_path: Path) -> None:
    chosen = ("--dataset", "synthetic", "--modality", "speech", "--cache", cache)
    out = mser("cache", "export", *chosen, "--to", "feats", "--layers", "0,2")
    assert out.returncode == 0, out.stderr
    back = mser(
        *("cache", "import", "feats", "--dataset", "synthetic", "--encoder", "theirs"),
        *("--cache", cache, "--store", "hdf5"),
    )
    assert back.returncode == 0, back.stderr
    features = FeatureCache(cache)
    ours = features.open("synthetic", modality="speech", encoder="small-wav2vec2")
    theirs = features.open("synthetic", encoder="theirs")
    assert theirs.spec.layers == (0, 2)
    assert list(theirs.ids) == list(ours.ids)
    for id in ours.ids:
        assert same_bits(theirs[id], ours[id][[0, 2]])
    trained = mser(
        *("train-head", "--dataset", "synthetic", "--head", "linear", "--modalities", "speech"),
        *("--speech-encoder", "theirs", "--cache", cache, "--set", "l2=0.1"),
    )
    assert trained.returncode == 0, trained.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("verify",), "there is no entry to verify"),
        (("gc",), "nothing to delete"),
        (("ls",), "holds no features yet"),
    ],
)
def test_an_empty_cache(
    mser: Mser, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    done = mser("cache", *arguments, "--cache", tmp_path / "none")
    assert done.returncode == 0
    assert expected in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("convert", "--dataset", "made-up", "--to", "csv"), 2, "unknown store 'csv'"),
        (("export", "--dataset", "made-up", "--to", "x", "--format", "csv"), 2, "csv"),
        (("export", "--dataset", "made-up", "--to", "x", "--layers", "all"), 2, "layers 'all'"),
        (("import", "nothing", "--dataset", "new", "--encoder", "e"), 2, "--manifest"),
        (("verify", "--dataset", "../etc"), 1, "is not a valid name of a dataset"),
        (
            ("verify", "--dataset", "made-down"),
            2,
            "has no entry for --dataset made-down: ",
        ),
        (("verify", "--modality", "vision"), 2, "has no entry for --modality vision"),
        (
            ("verify", "--dataset", "made-up", "--encoder", "other"),
            2,
            "has no entry for --dataset made-up --encoder other",
        ),
        (("info", "--dataset", "other"), 1, "holds no features of other"),
    ],
)
def test_a_wrong_command_prints_one_sentence(
    mser: Mser, tmp_path: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    fill(tmp_path / "shared", [{"a": array(1)}])
    done = mser("cache", *arguments, "--cache", tmp_path / "shared")
    assert (done.returncode, expected in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cache_command_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run_console_script(
        tmp_path, "cache", "ls", "--cache", tmp_path, PYTHONPROFILEIMPORTTIME="1"
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mser.cache" in imported
    assert not {"torch", "transformers", "distributed", "datasets", "s3fs"} & imported
