"""Encoders by hub name, against a small server on this machine."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mser.cache import FeatureCache
from mser.tests.support.fork_server import MSER, fork_server
from mser.tests.support.hub_server import HubState, hub_server

NAME = "someone/small-wav2vec2"

# In a fork: the library of the hub reads its variables when it is imported, so import it again.
AGAIN = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
    del sys.modules[name]
"""


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
        state = HubState()
        state.add_folder(NAME, Path(folder))
        with hub_server(state, self.port):
            yield state.asked


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


def test_a_mistyped_feature_extractor(extract, hub, encoders):
    with hub(encoders["speech"]):
        pass
    assert_refused(extract("log-mell"), "did you mean the feature extractor 'log-mel'?")
    assert "did you mean" not in extract("gpt2").stderr


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
