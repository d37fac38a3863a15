"""Fixtures of the tests of the cache."""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from mser.tests.support.cache_entries import array
from mser.tests.support.cache_processes import Start
from mser.tests.support.hostile_caches import content


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write without waiting for the disk: no test here depends on a power failure."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a function in a process of its own, which ends with the test."""
    context = multiprocessing.get_context("forkserver")
    # Imports that take a second are loaded before, so a function begins at once.
    context.set_forkserver_preload(["pandas", "pytest", "mser.tests.support.stress_work"])
    started: list[BaseProcess] = []

    def start_process(function: Callable[..., None], *arguments: object) -> BaseProcess:
        process = context.Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the test unpickles anything."""

    def fail(*_: object, **__: object) -> Any:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, fail)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the cache that nothing may read, change or delete."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(array(99).tobytes() * 50)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.tex").write_text("years of work")
    before = content(folder)
    yield folder
    assert content(folder) == before
