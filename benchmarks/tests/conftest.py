"""Small random encoders, made once for the tests of the benchmarks."""

import os

# Before torch is imported: small models are not faster with more threads, and much slower on a
# machine that does other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import (
    save_speech_encoder,
    save_text_encoder,
)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Modality → folder of a small random encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "speech": str(save_speech_encoder(folder / "small-wav2vec2")),
        "text": str(save_text_encoder(folder / "small-bert", synthetic.SENTENCE_WORDS)),
    }
