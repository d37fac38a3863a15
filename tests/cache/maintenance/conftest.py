"""Fixtures of the tests of a cache's maintenance."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mser.tests.support.cache_entries import FOUR
from mser.tests.support.damaged_caches import Made, existing, make


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Caches by store and compression, each made once, to be copied."""

    @cache
    def template_of(store: str, compression: str) -> Path:
        root = tmp_path_factory.mktemp("template")
        make(root, store, compression)
        return root

    return template_of


@pytest.fixture(params=FOUR, ids="-".join)
def made(
    request: pytest.FixtureRequest, tmp_path: Path, template: Callable[[str, str], Path]
) -> Made:
    """An entry to damage, in a cache of its own, in each of four forms."""
    store, compression = request.param
    root = shutil.copytree(template(store, compression), tmp_path / "cache")
    return make(root, store, compression, existing)
