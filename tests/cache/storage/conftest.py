"""File systems for the tests of the storage."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mser.tests.support.real_mounts import Sshfs, mounted_sshfs


@pytest.fixture
def sshfs(tmp_path: Path) -> Iterator[Sshfs]:
    """An empty folder on sshfs."""
    with mounted_sshfs(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def no_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if obstore were not installed."""
    monkeypatch.setitem(sys.modules, "obstore", None)


@pytest.fixture(params=["obstore", "s3fs"])
def both_readers(request: pytest.FixtureRequest) -> None:
    """Repeat a test with ranges that obstore reads, and with ranges that s3fs reads."""
    if request.param == "s3fs":
        request.getfixturevalue("no_obstore")
