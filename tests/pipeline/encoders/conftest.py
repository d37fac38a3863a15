"""Small random encoders of every family, for the tests of encoders."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mser.tests.support.small_models import (
    DECODERS,
    SPEECH,
    save_decoder,
    save_speech,
    save_text,
    save_wav2vec2_bert,
    save_whisper,
)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → folder of a small random encoder, saved at the first call. Do not change it."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def save(kind: str) -> Path:
        if kind == "whisper":
            return save_whisper(root / kind)
        if kind == "wav2vec2-bert":
            return save_wav2vec2_bert(root / kind)
        if kind in DECODERS:
            return save_decoder(root / kind, kind)
        return (save_speech if kind in SPEECH else save_text)(root / kind, kind)

    return save
