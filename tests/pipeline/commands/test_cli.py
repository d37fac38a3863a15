"""The command line, as a user types it: output, exit codes, and errors of one sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import mser as package
from mser.cache import FeatureCache
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_text_encoder
from mser.pipeline.interruption import Interrupted, signals_interrupt
from mser.pipeline.interruption import interrupted as was_interrupted
from mser.tests.conftest import Call, Mser
from mser.tests.support.fork_server import MSER, fork_server
from mser.tests.support.standard_error import is_leakage_check, is_one_sentence

# One thread, since tests share the cores; offline, since no test contacts the hub.
CALM = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def extract_options(root: Path, cache: Path, encoders: dict[str, str]) -> list[object]:
    return [
        "extract",
        *("--dataset", "synthetic", "--root", root, "--cache", cache),
        *("--speech-encoder", encoders["speech"], "--text-encoder", encoders["text"]),
        *("--workers", 0),
    ]


def train_options(cache: Path) -> list[object]:
    return ["train-head", "--head", "linear", "--dataset", "synthetic", "--cache", cache]


# Help and version ---------------------------------------------------------------------------------

COMMANDS = (
    *("demo", "extract", "doctor"),
    *("train-head", "probe", "evaluate", "compare", "ablate", "predict", "report"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_an_example(call: Call, command: str, option: str) -> None:
    code, out, err = call(command, option)
    assert (code, err) == (0, "")
    assert f"Example: mser {command}" in " ".join(out.split())
    assert "Usage:" in out


def test_help_of_the_console_script_names_every_command(console_script: Mser) -> None:
    done = console_script("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert command in done.stdout


def test_examples_in_the_help_use_existing_options(call: Call) -> None:
    for command in COMMANDS:
        _, out, _ = call(command, "--help")
        help_text, example = " ".join(out.split()).split("Example: mser ")
        options = [word for word in example.split() if word.startswith("--")]
        assert options
        assert all(f"{option} " in help_text for option in options)


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"{package.__version__}\n", "")


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    script = """
import sys
import mser, mser.cli
heavy = {"torch", "transformers", "sklearn", "dask", "distributed", "av"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.argv = ["mser", "--help"]
try:
    mser.cli.main()
except SystemExit as end:
    assert not end.code
assert not {"torch", "transformers"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names() -> None:
    for name in ("FeatureCache", "load_encoder", "build_head", "extract", "train_head"):
        assert callable(getattr(package, name))
        assert name in package.__all__
        assert name in dir(package)
    assert issubclass(package.FeatureCache, FeatureCache)
    assert issubclass(package.CacheError, Exception)
    with pytest.raises(AttributeError, match="module 'mser' has no attribute 'build_heads'"):
        _ = package.build_heads


# The job ------------------------------------------------------------------------------------------


def test_extract_and_then_train_head(
    mser: Mser, call: Call, tmp_path: Path, encoders: dict[str, str]
) -> None:
    synthetic.make(tmp_path / "corpus", utterances_per_session=6)
    typed = ["extract", "--dataset", "synthetic", "--root", "corpus", "--workers", "0"]
    for modality, folder in encoders.items():
        typed += [f"--{modality}-encoder", folder]
    environment = {**CALM, "MSER_CACHE": str(tmp_path / "cache")}
    extracted = mser(*typed, **environment)
    assert extracted.returncode == 0, extracted.stderr
    assert "24 are in the cache: 24 new" in extracted.stdout

    code, out, err = call(*typed, "--cache", tmp_path / "cache", "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert [(one["present"], one["new"]) for one in summary["modalities"]] == [(24, 0), (24, 0)]

    typed = ["train-head", "--head", "linear", "--dataset", "synthetic", "--seeds", "0,1"]
    trained = mser(*typed, "--set", "l2=0.1", **environment)
    assert trained.returncode == 0, trained.stderr
    assert "weighted F1" in trained.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.json").exists()
    assert f"runs/{run.name}" in trained.stdout


def test_train_head_prints_valid_json_and_nothing_else(
    call: Call, filled_cache: Path, tmp_path: Path
) -> None:
    code, out, err = call(*train_options(filled_cache), "--set", "l2=0.1", "--json")
    assert code == 0
    assert is_leakage_check(err), err
    assert "train and validation share 8 speakers" in err
    result = json.loads(out)
    (run,) = (tmp_path / "runs").iterdir()
    assert result.pop("run") == str(Path("runs", run.name))
    assert result == json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def test_a_dry_run_prints_valid_json_and_writes_nothing(
    call: Call, corpus_root: Path, encoders: dict[str, str], tmp_path: Path
) -> None:
    options = extract_options(corpus_root, tmp_path / "cache", encoders)
    code, out, err = call(*options, "--dry-run", "--limit", 5, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["dry_run"]
    assert [one["pending"] for one in summary["modalities"]] == [5, 5]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_names_the_encoder_that_filled_the_cache(
    call: Call, filled_cache: Path, encoders: dict[str, str]
) -> None:
    options = [*train_options(filled_cache), "--set", "l2=0.1", "--json"]
    key = FeatureCache(filled_cache).open("synthetic", modality="speech").spec.key
    code, out, err = call(*options, "--speech-encoder", encoders["speech"])
    assert code == 0
    assert is_leakage_check(err), err
    for speech in ("small-wav2vec2", key):  # the same run, which is finished
        assert call(*options, "--speech-encoder", speech) == (0, out, "")


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dataset", "syntetic"], "did you mean 'synthetic'?"),
        (["--dataset", "mainfest"], "did you mean 'manifest'?"),
        (["--dataset", "of-our-own"], ", iemocap, manifest, meld, "),
        (["--dataset", "meld", "--root", "none/MELD.Raw"], "none/MELD.Raw"),
        (["--dataset", "meld"], "is not MELD"),
        (["--root", "{root}/utterances.csv"], "utterances.csv"),
        (["--speech-encoder", "{root}"], "is not an encoder: the folder has no config.json"),
        (["--speech-encoder", "./none"], "'./none' is not an encoder: the folder does not exist"),
        (["--text-encoder", "/none/at/all"], "'/none/at/all' is not an encoder"),
        (
            ["--device", "gpu"],
            "unknown device 'gpu': did you mean 'cuda'? (known: auto, cpu, cuda)",
        ),
        (["--precision", "float8"], "unknown precision 'float8'"),
        (["--dtype", "float61"], "did you mean 'float16'?"),
        (["--modalities", "speech,texts"], "did you mean 'text'?"),
        (["--modalities", ","], "no modality is given"),
        (["--layers", "0,99"], "99"),
        (["--layers", "some"], "some"),
        (["--workers", -1], "-1 workers"),
        (["--limit", 0], "limit = 0"),
        (["--shard-mib", 0], "shard_mib = 0.0: give more than 0"),
        (["--max-seconds", "inf"], "max_seconds = inf: give a finite number"),
        (["--max-seconds", "nan"], "max_seconds = nan: give a finite number"),
        (["--cache", "{root}/utterances.csv"], "is a file: give the path of a folder"),
    ],
)
def test_a_wrong_extract_prints_one_sentence(
    call: Call,
    corpus_root: Path,
    encoders: dict[str, str],
    tmp_path: Path,
    options: list[object],
    says: str,
) -> None:
    asked = [str(option).replace("{root}", str(corpus_root)) for option in options]
    code, out, err = call(*extract_options(corpus_root, tmp_path / "cache", encoders), *asked)
    assert code in (1, 2)
    assert is_one_sentence(err), err
    assert says in err
    assert out == ""
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--head", "hbff"], 2, "did you mean 'hbf'?"),
        (["--dataset", "synthetics"], 2, "did you mean 'synthetic'?"),
        (["--dataset", "../synthetic"], 2, "../synthetic"),
        (["--cache", "none"], 1, "run 'mser extract' first"),
        (["--speech-encoder", "facebook/hubert"], 1, "only by 'small-wav2vec2' (key "),
        (["--speech-encoder", "{root}"], 2, "is not an encoder"),
        (["--modalities", "video"], 1, "no video features of synthetic, only speech and text: "),
        (["--modalities", ""], 2, "no modality is given"),
        (["--protocol", "leave-one-out"], 2, "leave-one-session-out"),
        (["--protocol", "official"], 2, "needs the column split"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--layer", "99"], 2, "layer 99 of speech is not in the cache"),
        (["--layer", "middle"], 2, "layers 'middle': give mix, concat, last, or"),
        (["--seeds", "a,b"], 2, "seeds 'a,b': give numbers"),
        (["--seeds", ""], 2, "seeds"),
        (["--seeds", "1,1"], 2, "different numbers"),
        (["--set", "epochs"], 2, "write it as key=value"),
        (["--set", "epochs=x"], 2, "a whole number"),
        (["--set", "epoch=3"], 2, "did you mean 'epochs'?"),
        (["--set", "head.droput=3"], 2, "did you mean 'dropout'?"),
        (["--out", "{root}"], 2, "already exists and is not the folder of a run"),
        (["--out", "{root}/utterances.csv/x"], 1, "utterances.csv"),
    ],
)
def test_a_wrong_train_head_prints_one_sentence(
    call: Call,
    filled_cache: Path,
    corpus_root: Path,
    tmp_path: Path,
    options: list[object],
    code: int | None,
    says: str,
) -> None:
    asked = [str(option).replace("{root}", str(corpus_root)) for option in options]
    found, out, err = call(*train_options(filled_cache), *asked)
    assert found == code or (code is None and found in (1, 2))
    assert is_one_sentence(err), err
    assert says in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_other_weights_of_the_same_name_filled(
    call: Call, filled_cache: Path, tmp_path: Path
) -> None:
    other = save_text_encoder(
        tmp_path / "elsewhere" / "small-bert", synthetic.SENTENCE_WORDS, seed=1
    )
    code, out, err = call(*train_options(filled_cache), "--text-encoder", other)
    assert (code, out) == (1, "")
    assert is_one_sentence(err)
    assert "were made by another 'small-bert' than this one (weights is " in err


@pytest.mark.parametrize(
    "arguments", [["extract"], ["train-head", "--head"], ["trainhead"], ["extract", "--no"]]
)
def test_an_error_of_click_is_a_usage_error(call: Call, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err
    assert "Traceback" not in err


def test_an_error_of_the_console_script(console_script: Mser, filled_cache: Path) -> None:
    done = console_script(*train_options(filled_cache), "--layer", 99, **CALM)
    assert (done.returncode, done.stdout) == (2, "")
    assert is_one_sentence(done.stderr)


def test_debug_shows_the_traceback(mser: Mser, tmp_path: Path) -> None:
    done = mser("--debug", *train_options(tmp_path / "none"), **CALM)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" in done.stderr
    assert "run 'mser extract' first" in done.stderr


@pytest.mark.parametrize("options", [["--dataset", "medl"], ["--root", "none"]])
def test_a_wrong_corpus_is_an_error_before_any_download(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def ask(*_: object, **__: object) -> str:
        raise AssertionError("the encoder is downloaded")

    monkeypatch.setattr("huggingface_hub.snapshot_download", ask)
    code, _, err = call("extract", "--dataset", "meld", "--root", tmp_path, *options)
    assert code == 2
    assert is_one_sentence(err)


def test_a_used_dashboard_port_causes_no_warning(
    tmp_path: Path, corpus_root: Path, encoders: dict[str, str]
) -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # another process uses it
            taken.bind(("", 8787))
            taken.listen()
        options = extract_options(corpus_root, tmp_path / "cache", encoders)
        options += ["--modalities", "text", "--limit", 2, "--workers", 1]
        done = fork_server().run(MSER, *options, folder=tmp_path, workers=True)
    assert done.returncode == 0
    assert "8787" not in done.stderr


@pytest.mark.parametrize(
    ("number", "workers", "word"),
    [
        (signal.SIGINT, 0, "interrupted"),
        (signal.SIGINT, 1, "interrupted"),
        (signal.SIGTERM, 0, "ended by SIGTERM"),
        (signal.SIGTERM, 1, "ended by SIGTERM"),
        (signal.SIGHUP, 0, "ended by SIGHUP"),
    ],
)
def test_a_signal_ends_an_extraction_with_one_sentence_and_no_lease(
    tmp_path: Path,
    corpus_root: Path,
    encoders: dict[str, str],
    number: signal.Signals,
    workers: int,
    word: str,
) -> None:
    cache = tmp_path / "cache"
    code, out, err = interrupted(corpus_root, cache, encoders, workers, number)
    assert code == -number  # by the signal itself: only then bash leaves a loop
    assert out == ""
    assert is_one_sentence(err), err
    assert err.startswith(f"mser: {word}")
    entry = FeatureCache(cache).open("synthetic", modality="speech")
    assert 0 < len(entry) < 96
    assert all(states.shape[0] == entry.n_layers for states in entry.read(entry.ids))
    assert [*cache.rglob("leases/*.json")] == []


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_interrupt():
            signal.raise_signal(signal.SIGHUP)
            assert not was_interrupted()
            with pytest.raises(Interrupted, match="ended by SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
            assert was_interrupted()
            signal.raise_signal(signal.SIGTERM)  # the cleanup goes on
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not was_interrupted()


def interrupted(
    root: Path, cache: Path, encoders: dict[str, str], workers: int, number: signal.Signals
) -> tuple[int, str, str]:
    """Extract, and send a signal when the first shard exists."""
    options = [*extract_options(root, cache, encoders), "--shard-mib", 1e-4, "--workers", workers]
    running = fork_server().start(MSER, *options, session=True, workers=workers > 0)
    while running.poll() is None and not list(cache.glob("synthetic/*/shards/[0-9]*")):
        time.sleep(0.01)
    os.killpg(running.pid, number)  # a terminal and SLURM send it to every process
    out, err = running.communicate(timeout=120)
    return running.wait(), out, err
