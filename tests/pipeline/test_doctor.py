"""``mser doctor``: complete, fast, and never a traceback."""

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import psutil
import pytest
from huggingface_hub import constants

import mser as package
from mser.cache import FeatureCache, listing
from mser.pipeline import doctor as module
from mser.pipeline.doctor import Diagnosis, doctor
from mser.pipeline.extract import audio
from mser.tests.conftest import Call
from mser.tests.support.cache_entries import path_of

ENCODER = "someone/small-wav2vec2"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test contacts the real hub, or sees its files on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A hub on this machine, which answers with ``status``."""
    hub = SimpleNamespace(status=200, asked=[])

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.asked.append(self.path)
            self.send_response(hub.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield hub
    server.shutdown()
    server.server_close()


def sentences(found: Diagnosis, word: str) -> list[str]:
    return [one.sentence for one in found.problems if word in one.sentence]


# Facts --------------------------------------------------------------------------------------------


def test_the_facts_of_this_machine(call: Call, filled_cache: Path) -> None:
    before = sorted(filled_cache.rglob("*"))
    code, out, err = call("doctor", "--cache", filled_cache, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["packages"]["mser"] == package.__version__
    assert found["packages"]["torch"] == import_module("torch").__version__.partition("+")[0]
    assert 1 <= found["machine"]["cores"] <= found["machine"]["cores of the machine"]
    assert 0 < found["machine"]["free memory"] <= found["machine"]["memory"]
    assert found["FFmpeg"]["decodes AAC"] is True
    held = [e for e in listing(FeatureCache(filled_cache)).entries if e.pooled_from is None]
    assert found["cache"]["datasets"] == ["synthetic"]
    assert found["cache"]["entries"] == len(held) == 2
    assert found["cache"]["size"] == sum(one.bytes for one in held)
    assert found["cache"]["can be written"] is True
    assert found["cache"]["free"] == pytest.approx(shutil.disk_usage(filled_cache).free, rel=0.2)
    assert sorted(filled_cache.rglob("*")) == before  # doctor leaves no files


def test_the_text_lists_the_facts_and_then_the_problems(call: Call, filled_cache: Path) -> None:
    code, out, err = call("doctor", "--cache", filled_cache)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "  decodes AAC                     yes" in lines
    facts = [line for line in lines if not line.startswith(("problem: ", "BROKEN: "))]
    assert lines[: len(facts)] == facts
    assert lines[len(facts) :]
    assert "HF_HUB_OFFLINE is set" in out


def test_a_cache_that_does_not_exist_yet_is_not_a_problem(tmp_path: Path) -> None:
    found = doctor(str(tmp_path / "not" / "there" / "yet"))
    assert found.facts["cache"]["can be written"] is True
    assert found.facts["cache"]["entries"] == 0
    assert not sentences(found, "there/yet")
    assert not (tmp_path / "not").exists()


def test_a_cache_in_an_object_store_is_listed(tmp_path: Path) -> None:
    found = doctor("memory://doctor")
    assert found.facts["cache"]["place"].endswith("doctor")
    assert found.facts["cache"]["entries"] == 0
    assert not found.broken


# The hub ------------------------------------------------------------------------------------------


def test_a_hub_that_answers_is_enough(online: SimpleNamespace, tmp_path: Path) -> None:
    found = doctor(str(tmp_path), (ENCODER,))
    assert found.facts["hub"]["reached"] is True
    assert found.facts["hub"][f"has {ENCODER}"] is False
    assert not sentences(found, ENCODER)
    assert len(online.asked) == 1


def test_local_encoders_are_enough_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(config))
    found = doctor(str(tmp_path), (ENCODER,))
    assert found.facts["hub"]["offline mode"] is True
    assert found.facts["hub"]["reached"] == "not tried"
    assert found.facts["hub"][f"has {ENCODER}"] is True
    assert not sentences(found, ENCODER)


@pytest.mark.parametrize("fate", ["closed", "silent", "failing"])
def test_a_hub_that_does_not_answer_is_reported_and_not_broken(
    online: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    monkeypatch.setattr(module, "_HUB_SECONDS", 0.3)
    with socket.socket() as silent:  # accepts connections, and never answers
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if fate == "silent":
            silent.listen()
        if fate == "failing":
            online.status = 503
        else:
            monkeypatch.setattr(constants, "ENDPOINT", address)
        found = doctor(str(tmp_path), (ENCODER,))
    assert found.facts["hub"]["reached"] is False
    (sentence,) = sentences(found, ENCODER)
    assert "hf download" in sentence
    assert not found.broken


# Broken -------------------------------------------------------------------------------------------


def test_a_package_that_cannot_be_imported_is_broken(
    call: Call, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str):
        if name == "av":
            raise OSError("libcudart.so.13: cannot open shared object file:\nNo such file")
        return import_module(name)

    monkeypatch.setattr(module, "import_module", without)
    code, out, err = call("doctor", "--cache", filled_cache)
    assert (code, err) == (1, "")
    (line,) = (line for line in out.splitlines() if line.startswith("BROKEN: "))
    assert "av cannot be imported (OSError: libcudart.so.13" in line


def test_a_torchaudio_that_does_not_fit_torch_is_no_fault_of_the_rest(
    call: Call, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str):
        if name == "torchaudio":
            raise OSError("undefined symbol: aoti_torch_abi_version")
        return import_module(name)

    monkeypatch.setattr(module, "import_module", without)
    code, out, err = call("doctor", "--cache", filled_cache)
    assert (code, err) == (0, "")
    (line,) = (line for line in out.splitlines() if line.startswith("problem: torchaudio"))
    assert "undefined symbol" in line
    assert "all others can" in line


def test_an_ffmpeg_that_does_not_decode_aac_is_broken(
    call: Call, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = np.zeros(16_000, dtype=np.float32)
    monkeypatch.setattr(audio, "decode", lambda content: silence)
    code, out, _ = call("doctor", "--cache", filled_cache)
    assert code == 1
    assert "BROKEN: FFmpeg cannot decode AAC" in out


def test_a_cache_below_a_file_is_broken(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    code, out, err = call("doctor", "--cache", "file/cache")
    assert (code, err) == (1, "")
    assert "file is a file" in out


def test_a_read_only_cache_is_broken_only_if_it_is_empty(
    call: Call, filled_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    code, out, _ = call("doctor", "--cache", filled_cache)
    assert code == 0
    assert f"problem: {filled_cache} cannot be written (Permission denied)" in out
    code, out, _ = call("doctor", "--cache", tmp_path / "empty")
    assert code == 1
    assert "BROKEN: " in out


def test_a_cache_that_cannot_be_checked_is_broken_and_the_rest_is_reported(call: Call) -> None:
    code, out, err = call("doctor", "--cache", "nonsense://bucket/cache", "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert [one["broken"] for one in found["problems"] if "cache" in one["sentence"]] == [True]
    assert "dask" in found["clusters"]  # the last check


# Problems -----------------------------------------------------------------------------------------


def test_a_damaged_entry_is_named(filled_cache: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(filled_cache, tmp_path / "cache")
    record = path_of(FeatureCache(cache).open("synthetic", modality="text")) / "entry.json"
    record.write_text("{")
    found = doctor(str(cache))
    (sentence,) = sentences(found, "entry.json")
    assert record.parent.name in sentence
    assert not found.broken


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    assert sentences(doctor(str(tmp_path)), "3.0 MB free")


def test_slurm_without_dask_jobqueue_and_a_driver_without_a_gpu_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = module._version
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(import_module("torch").cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        module, "_version", lambda name: "not installed" if name == "dask-jobqueue" else known(name)
    )
    found = doctor(str(tmp_path))
    assert found.facts["clusters"]["sbatch"] == "/usr/bin/sbatch"
    assert sentences(found, "pip install 'mser[slurm]'")
    assert sentences(found, "PyTorch finds no GPU")
    assert not found.broken


def test_a_check_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken():
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    found = doctor(str(tmp_path))
    assert sentences(found, "machine cannot be checked")
    assert sentences(found, "no /proc here")
    assert found.facts["cache"]["entries"] == 0
    assert not found.broken
