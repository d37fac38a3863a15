"""Encoders by hub name, against a small server on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from mser.cache import FeatureCache

NAME = "someone/small-wav2vec2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves one model: its description, the list of its files, and the files."""

    def __init__(self, folder: Path, asked: list[str], *arguments) -> None:
        self.folder = folder
        self.asked = asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.asked.append(path)
        files = {f"/{NAME}/resolve/{COMMIT}/{file.name}": file for file in self.folder.iterdir()}
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main"):
            siblings = [{"rfilename": file.name} for file in files.values()]
            self.send(json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            tree = [
                {
                    "type": "file",
                    "path": file.name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in files.values()
            ]
            self.send(json.dumps(tree).encode())
        elif path in files:
            content = files[path].read_bytes()
            self.send(content, with_body=with_body, kind="application/octet-stream")
        else:
            self.send(b"{}", status=404, error="RepoNotFound")

    def send(
        self,
        body: bytes,
        *,
        status: int = 200,
        with_body: bool = True,
        kind: str = "application/json",
        error: str | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", "Repository not found")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def hub(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Serve the encoder in ``folder``; yield the address and the requested paths."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, Path(folder), asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def extract(mser, corpus_root, tmp_path):
    """Run ``mser extract`` with an encoder by hub name, and a hub and a home of its own."""

    def run(endpoint: str, *more: object, name: str = NAME):
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return mser(
            *("extract", "--dataset", "synthetic", "--root", corpus_root, "--device", "cpu"),
            *("--cache", tmp_path / "cache", "--modalities", "speech", "--speech-encoder", name),
            *("--workers", 0, "--limit", 3, *more),
            **settings,
        )

    return run


def assert_refused(done, *words: str) -> None:
    """The command ended with code 2 and one sentence."""
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mser: ")
    for word in words:
        assert word in lines[0]


def test_an_encoder_of_the_hub_is_downloaded_once_and_then_local(
    extract, encoders, filled_cache, tmp_path
):
    with hub(encoders["speech"]) as (endpoint, asked):
        done = extract(endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"speech: {NAME}," in done.stdout
    fetched = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {"config.json", "preprocessor_config.json", "model.safetensors"}

    entry = FeatureCache(tmp_path / "cache").open("synthetic", encoder=NAME)
    assert entry.spec.encoder == NAME
    assert len(entry) == 3
    local = FeatureCache(filled_cache).open("synthetic", modality="speech")
    assert entry.spec.key == local.spec.key  # the name is not part of the identity
    for id in entry.ids:
        ours, theirs = entry[id].astype(np.float32), local[id].astype(np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=2**-10, atol=2**-14)

    again = extract(endpoint)  # the server has stopped
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing new" in again.stdout or "0 new" in again.stdout


def test_a_hub_that_cannot_be_reached(extract, encoders):
    with hub(encoders["speech"]) as (endpoint, _):
        pass
    assert_refused(extract(endpoint), f"'{NAME}'", "give a local folder, or run 'hf download")


def test_a_model_the_hub_does_not_have(extract, encoders):
    with hub(encoders["speech"]) as (endpoint, asked):
        done = extract(endpoint, name="someone/else")
    assert any("someone/else" in path for path in asked)
    assert_refused(done, "'someone/else' is neither a local folder nor a model on the Hugging Face")


def test_an_invalid_model_name(extract, encoders):
    with hub(encoders["speech"]) as (endpoint, asked):
        done = extract(endpoint, name="some one/small wav2vec2")
    assert asked == []
    assert_refused(done, "neither a local folder nor a model")


def test_a_model_without_weights(extract, encoders, tmp_path):
    (tmp_path / "bare").mkdir()
    for file in Path(encoders["speech"]).glob("*.json"):
        (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    with hub(str(tmp_path / "bare")) as (endpoint, _):
        done = extract(endpoint)
    assert_refused(done, "has no weights that PyTorch can load")
