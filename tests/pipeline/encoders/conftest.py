"""Small random encoders of every family, for the tests of encoders."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mser.tests.support.small_models import SPEECH, save_speech, save_text, save_whisper


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → folder of a small random encoder, saved at the first call. Do not change it."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def save(kind: str) -> Path:
        if kind == "whisper":
            return save_whisper(root / kind)
        return (save_speech if kind in SPEECH else save_text)(root / kind, kind)

    return save
