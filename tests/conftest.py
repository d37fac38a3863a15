"""Small encoders, a small corpus and a filled cache, made once for all tests."""

import os
import sys

# Before anything large is imported, here and in the processes that tests start: without bytecode on
# the disk, each of them compiles its libraries again, which takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Before torch is imported: small models are no faster with more, and far slower where something
# else keeps a core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# In memory where there is such a place: what is written is brought to the disk each time, and a
# slow disk would take most of the tests' time.
if os.access("/dev/shm", os.W_OK):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

import fcntl
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mser import cli
from mser.tests.support.fork_server import MSER, fork_server
from mser.tests.support.quick_workers import fork_servers_are_forks_of

# What takes seconds to import is imported where it is used: the process that distributes the tests
# to others needs none of it.
if TYPE_CHECKING:
    from mser.pipeline.extract import Summary
    from mser.tests.support.object_store import ObjectStore

Mser = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., tuple[int, str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that repeat one behaviour for very many inputs, unless all are wanted."""
    if os.environ.get("MSER_ALL_TESTS") == "1":
        return
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.skip(reason="set MSER_ALL_TESTS=1, as .ci/run does"))


def make_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Let one of the test processes fill a folder, which all of them then share.

    Args:
        tmp_path_factory: pytest's own.
        name: the name of the folder, which is that of the fixture.
        make: fills the empty folder that it is given.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # then each process has a folder of its own below root
        root = root.parent
    folder, complete = root / "shared" / name, root / "shared" / f"{name}.complete"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Modality → folder of a small random encoder."""

    from mser.pipeline.corpora.synthetic import SENTENCE_WORDS  # noqa: PLC0415
    from mser.pipeline.encoders import random_encoders  # noqa: PLC0415

    def make(folder: Path) -> None:
        random_encoders.save_speech_encoder(folder / "small-wav2vec2")
        random_encoders.save_text_encoder(folder / "small-bert", SENTENCE_WORDS)

    folder = make_once(tmp_path_factory, "encoders", make)
    return {"speech": str(folder / "small-wav2vec2"), "text": str(folder / "small-bert")}


@pytest.fixture(scope="session")
def corpus_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic corpus of 96 utterances in 4 sessions. Do not change it: copy it."""

    from mser.pipeline.corpora import synthetic  # noqa: PLC0415

    def make(folder: Path) -> None:
        synthetic.make(folder / "synthetic", utterances_per_session=24)

    return make_once(tmp_path_factory, "corpus_root", make) / "synthetic"


@pytest.fixture(scope="session")
def filled_cache(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, str], corpus_root: Path
) -> Path:
    """A cache with both modalities of the corpus, pooled. Do not change it: copy it."""

    from mser.cache import FeatureCache, pooled_entry  # noqa: PLC0415
    from mser.pipeline.extract import ExtractSettings, extract  # noqa: PLC0415

    def make(folder: Path) -> None:
        extract(
            ExtractSettings("synthetic", corpus_root, folder, encoders, workers=0, shard_mib=0.5)
        )
        cache = FeatureCache(folder)
        for entry in cache.entries("synthetic"):
            pooled_entry(cache, entry)  # as the first training does

    return make_once(tmp_path_factory, "filled_cache", make)


@pytest.fixture(scope="session")
def meld_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in MELD's layout with the faults of the release. Do not change it: copy it."""

    from mser.tests.support.meld_tree import write_meld  # noqa: PLC0415

    def make(folder: Path) -> None:
        write_meld(folder / "MELD.Raw")

    return make_once(tmp_path_factory, "meld_original", make) / "MELD.Raw"


@pytest.fixture
def meld(meld_original: Path, tmp_path: Path) -> Path:
    """A copy of the MELD tree, for tests that change it."""
    return shutil.copytree(meld_original, tmp_path / "MELD.Raw")


@pytest.fixture(scope="session")
def meld_filled(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, str], meld_original: Path
) -> tuple[Path, "Summary"]:
    """A cache of MELD, and the summary of filling it. Do not change it: copy it."""
    from mser.pipeline.extract import ExtractSettings, extract  # noqa: PLC0415

    def make(folder: Path) -> None:
        cache = folder / "cache"
        settings = ExtractSettings("meld", meld_original, cache, encoders, workers=0, device="cpu")
        (folder / "summary").write_bytes(pickle.dumps(extract(settings)))

    folder = make_once(tmp_path_factory, "meld_filled", make)
    return folder / "cache", pickle.loads((folder / "summary").read_bytes())


@pytest.fixture
def filled(meld_filled: tuple[Path, "Summary"], tmp_path: Path) -> Path:
    """A cache that holds all of MELD that can be used, to change."""
    return shutil.copytree(meld_filled[0], tmp_path / "filled")


def run_mser(
    folder: Path, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, in a process that has its imports already."""
    set_here = {**os.environ, **environment}
    return fork_server().run(MSER, *arguments, folder=folder, environment=set_here)


def run_console_script(
    folder: Path, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user types it, in a folder; the imports take seconds."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "mser"), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def quick_workers() -> Iterator[None]:
    """Dask workers that this process starts are forked from a process that has all imports."""
    with pytest.MonkeyPatch.context() as patch:
        fork_servers_are_forks_of(fork_server(), patch)
        yield


@pytest.fixture
def mser(tmp_path: Path) -> Mser:
    """Run the command line in a process of its own, in an empty folder."""
    return partial(run_mser, tmp_path)


@pytest.fixture
def console_script(tmp_path: Path) -> Mser:
    """Run the command line as a user types it, in an empty folder."""
    return partial(run_console_script, tmp_path)


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Call]:
    """Call what the console script calls, without the seconds that a new process takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("MSER_CACHE", "MSER_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli, "end_by", lambda number: sys.exit(128 + number))  # not these tests

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mser", *map(str, arguments)])
        capfd.readouterr()
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return int(code or 0), out, err

    yield run
    os.environ.pop("MSER_DEBUG", None)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home in which no code was named yet, and the tables of a fresh process afterwards."""
    from mser.tests.support.installed_plugins import restored_tables  # noqa: PLC0415

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with restored_tables():
        yield


@pytest.fixture(scope="session")
def object_server() -> Iterator["ObjectStore"]:
    """The server of all object stores."""
    from mser.tests.support.object_store import ObjectStore  # noqa: PLC0415 -- moto takes a second

    server = ObjectStore()
    yield server
    server.stop()


@pytest.fixture
def store(object_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "ObjectStore":
    """An empty object store; the environment holds what a client needs to reach it."""
    for name, value in object_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    object_server.reset()
    return object_server
