"""Trees in the layouts of the corpora. The ``_original`` trees are shared: do not change them."""

import shutil
from pathlib import Path

import pytest

from mser.tests.support.crema_d_tree import write_crema_d
from mser.tests.support.iemocap_tree import write_iemocap


@pytest.fixture(scope="session")
def iemocap_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in IEMOCAP's layout with the traps of the release."""
    return write_iemocap(tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release")


@pytest.fixture
def iemocap(iemocap_original: Path, tmp_path: Path) -> Path:
    """A copy of the IEMOCAP tree, for tests that change it."""
    return shutil.copytree(iemocap_original, tmp_path / "IEMOCAP_full_release")


@pytest.fixture(scope="session")
def crema_d_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in the layout of CREMA-D's repository with the faults of the release."""
    return write_crema_d(tmp_path_factory.mktemp("crema-d") / "CREMA-D")


@pytest.fixture
def crema_d(crema_d_original: Path, tmp_path: Path) -> Path:
    """A copy of the CREMA-D tree, for tests that change it."""
    return shutil.copytree(crema_d_original, tmp_path / "CREMA-D")
