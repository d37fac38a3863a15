"""Encoders by hub name, against a small server on this machine."""

import hashlib
import json
import os
import shutil
import socket
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
from mser.tests.support.fork_server import MSER, fork_server

NAME = "someone/small-wav2vec2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# In a fork: the library of the hub reads its variables when it is imported, so import it again.
AGAIN = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
    del sys.modules[name]
"""


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


class Site:
    """A place on this machine for one hub at a time, and the variables that name the place."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = home
        self.environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    @contextmanager
    def hub(self, folder: str | Path) -> Iterator[list[str]]:
        """Serve the encoder in ``folder``; yield the requested paths."""
        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", self.port), partial(Hub, Path(folder), asked))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("hub") / "hf")


@pytest.fixture
def hub(site):
    shutil.rmtree(site.home, ignore_errors=True)
    return site.hub


@pytest.fixture
def extract(site, corpus_root, tmp_path):
    """Run ``mser extract`` with an encoder by hub name."""

    def run(name: str = NAME):
        return fork_server().run(
            AGAIN + MSER,
            *("extract", "--dataset", "synthetic", "--root", corpus_root, "--device", "cpu"),
            *("--cache", tmp_path / "cache", "--modalities", "speech", "--speech-encoder", name),
            *("--workers", 0, "--limit", 3),
            environment={**os.environ, **site.environment},
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
    extract, hub, encoders, filled_cache, tmp_path
):
    with hub(encoders["speech"]) as asked:
        done = extract()
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

    again = extract()  # the server has stopped
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing new" in again.stdout or "0 new" in again.stdout


def test_a_hub_that_cannot_be_reached(extract, hub, encoders):
    with hub(encoders["speech"]):
        pass
    assert_refused(extract(), f"'{NAME}'", "give a local folder, or run 'hf download")


def test_a_model_the_hub_does_not_have(extract, hub, encoders):
    with hub(encoders["speech"]) as asked:
        done = extract("someone/else")
    assert any("someone/else" in path for path in asked)
    assert_refused(done, "'someone/else' is neither a local folder nor a model on the Hugging Face")


def test_an_invalid_model_name(extract, hub, encoders):
    with hub(encoders["speech"]) as asked:
        done = extract("some one/small wav2vec2")
    assert asked == []
    assert_refused(done, "neither a local folder nor a model")


def test_a_model_without_weights(extract, hub, encoders, tmp_path):
    (tmp_path / "bare").mkdir()
    for file in Path(encoders["speech"]).glob("*.json"):
        (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    with hub(tmp_path / "bare"):
        done = extract()
    assert_refused(done, "has no weights that PyTorch can load")
