"""The drawn faces of the synthetic corpus show the emotion, but not always."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mser.pipeline.corpora import synthetic
from mser.pipeline.corpora.synthetic_face import SIZE, draw_looks, film


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "corpus"
    synthetic.make(root, utterances_per_session=2)
    return root


def test_every_utterance_has_a_video_of_its_length(small: Path) -> None:
    for utterance in synthetic.load(small).utterances:
        assert utterance.video is not None
        assert utterance.audio is not None
        with av.open(str(utterance.audio)) as heard, av.open(str(utterance.video)) as seen:
            seconds = (heard.duration or 0) / av.time_base
            stream = seen.streams.video[0]
            assert (stream.height, stream.width) == (SIZE, SIZE)
            length = float((stream.duration or 0) * (stream.time_base or 0))
            assert length == pytest.approx(seconds, abs=0.11)  # half a frame


def test_the_same_seed_gives_the_same_videos(small: Path, tmp_path: Path) -> None:
    synthetic.make(tmp_path / "more", utterances_per_session=3)
    for path in small.rglob("*.avi"):
        again = tmp_path / "more" / path.relative_to(small)
        assert path.read_bytes() == again.read_bytes()


def test_a_corpus_of_an_older_version_has_no_videos(small: Path, tmp_path: Path) -> None:
    older = shutil.copytree(small, tmp_path / "older")
    shutil.rmtree(older / "video")
    table = older / "utterances.csv"
    rows = [",".join(line.split(",")[:8]) for line in table.read_text().splitlines()]
    table.write_text("\n".join([*rows, ""]))
    found = synthetic.load(older).utterances
    assert {utterance.video for utterance in found} == {None}
    assert [utterance.id for utterance in found] == [u.id for u in synthetic.load(small).utterances]


def accuracy(strength: float) -> float:
    """How often logistic regression on the mean frame finds the emotion of another speaker."""
    rng = np.random.default_rng(7)
    looks = [draw_looks(rng) for _ in range(8)]
    wave = rng.integers(-3000, 3000, 6400).astype(np.int16)
    labels = [synthetic.CLASSES[number % 4] for number in range(128)]
    speakers = [number // 16 for number in range(128)]
    films = [
        film(label, strength, looks[speaker], wave, rng)
        for label, speaker in zip(labels, speakers, strict=True)
    ]
    pixels = np.stack([frames.mean(axis=(0, 3))[::3, ::3].ravel() for frames in films])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=300))
    scores = cross_val_score(model, pixels, labels, groups=speakers, cv=GroupKFold(4))
    return float(scores.mean())


def test_a_face_shows_the_emotion_if_its_strength_is_not_zero() -> None:
    assert accuracy(1.0) > accuracy(0.0) + 0.15


def test_about_a_third_of_the_faces_do_not_show_it() -> None:
    assert 0.25 < synthetic._FLAT_FACE < 0.45
