"""File systems for the tests of the storage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mser.tests.support.real_mounts import Sshfs, mounted_sshfs


@pytest.fixture
def sshfs(tmp_path: Path) -> Iterator[Sshfs]:
    """An empty folder on sshfs."""
    with mounted_sshfs(tmp_path) as mounted:
        yield mounted
