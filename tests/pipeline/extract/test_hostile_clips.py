"""Every utterance of a hostile corpus is extracted correctly or named with a reason."""

import json
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mser.cache import FeatureCache
from mser.pipeline.encoders.random_encoders import save_speech_encoder
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.audio import BadClipError, decode, probe, read_clip
from mser.tests.conftest import run_mser
from mser.tests.support import hostile_clips
from mser.tests.support.clip_outcomes import RATE, Array, Heard, Lasts, Refused
from mser.tests.support.extract_runs import assert_rounded, direct

FIELD, STRIDE = 400, 320  # samples of a frame, and between two frames, as in wav2vec2-base
PYTHON = re.compile(r"Error\b|Exception|Errno|Traceback|None|<|\bav\b|numpy|torch")


class Ran:
    """A run over the corpus: its output, and its cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encoder = save_speech_encoder(
            folder / "small-wav2vec2", conv_stride=(5, 2, 2, 2, 2, 2, 2), conv_dim=(32,) * 7
        )
        (folder / "corpus").mkdir()
        self.manifest, self.outcomes = hostile_clips.make(folder / "corpus")
        self.refused = {id: one for id, one in self.outcomes.items() if isinstance(one, Refused)}
        done = run_mser(
            folder,
            *("extract", "--dataset", "manifest", "--manifest", self.manifest, "--name", "hostile"),
            *("--modalities", "speech", "--speech-encoder", self.encoder, "--device", "cpu"),
            *("--cache", folder / "cache", "--workers", "0", "--json"),
        )
        assert done.returncode == 0, done.stderr
        assert not re.search("Traceback|Warning", done.stderr)
        self.facts: dict[str, Any] = json.loads(done.stdout)
        (self.speech,) = self.facts["modalities"]
        self.entry = FeatureCache(folder / "cache").open("hostile")

    def features(self, outcome: type[Heard] | type[Lasts]) -> dict[str, tuple[Any, Array]]:
        """The features of all utterances with this kind of outcome, with the outcome."""
        ids = [id for id, one in self.outcomes.items() if isinstance(one, outcome)]
        return {id: (self.outcomes[id], self.entry[id]) for id in ids}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("hostile"))


def test_every_utterance_is_extracted_or_in_quarantine(ran: Ran) -> None:
    assert ran.facts["utterances"] == len(ran.outcomes) >= 100
    assert set(ran.entry.ids) == ran.outcomes.keys() - ran.refused.keys()
    assert set(ran.entry.quarantine) == ran.refused.keys()
    assert [bad["id"] for bad in ran.speech["quarantined"]] == list(ran.refused)
    assert ran.speech["new"] == len(ran.outcomes) - len(ran.refused)
    assert (ran.speech["present"], ran.speech["pending"]) == (0, 0)


def test_every_utterance_has_the_expected_reason(ran: Ran) -> None:
    found = {bad["id"]: (bad["reason"], bad["detail"]) for bad in ran.speech["quarantined"]}
    assert {id: reason for id, (reason, _) in found.items()} == {
        id: outcome.reason for id, outcome in ran.refused.items()
    }
    for id, (_, detail) in found.items():
        assert ran.refused[id].message in detail
        assert len(detail.split()) >= 4, "a sentence"
        assert not PYTHON.search(detail.replace(str(ran.folder), "")), detail


def test_features_are_those_of_the_samples_that_were_written(ran: Ran) -> None:
    wrong = {}
    for id, (outcome, stored) in ran.features(Heard).items():
        try:
            assert_rounded(stored, direct(str(ran.encoder), outcome.wave))
        except AssertionError as error:
            wrong[id] = str(error)
    assert wrong == {}


def test_a_lossy_codec_keeps_the_number_of_frames(ran: Ran) -> None:
    for id, (outcome, stored) in ran.features(Lasts).items():
        fewest, most = (
            (round((outcome.seconds + slack) * RATE) - FIELD) // STRIDE + 1
            for slack in (-outcome.slack, outcome.slack)
        )
        assert fewest <= stored.shape[1] <= most, id


def test_a_clip_longer_than_a_window_is_reported(ran: Ran) -> None:
    ((id, windows),) = ran.speech["long"]
    assert id == "5-minutes.wav"
    assert re.fullmatch(r"300\.0 s in 1\d windows of 30 s", windows)


def test_a_second_run_finds_the_same(ran: Ran) -> None:
    summary = extract(
        ExtractSettings(
            dataset="manifest",
            root=None,
            manifest=ran.manifest,
            name="hostile",
            cache=ran.folder / "cache",
            encoders={"speech": str(ran.encoder)},
            device="cpu",
            workers=0,
        )
    )
    text = str(summary)
    assert f"{len(ran.outcomes)} utterances" in text
    assert f"{len(ran.outcomes) - len(ran.refused)} are in the cache: nothing new" in text
    assert f"{len(ran.refused)} in quarantine" in text
    assert "5-minutes.wav 300.0 s" in text
    (speech,) = summary.modalities
    assert {bad.id: bad.reason for bad in speech.quarantined} == {
        id: outcome.reason for id, outcome in ran.refused.items()
    }


def test_nothing_is_written_anywhere_else(ran: Ran) -> None:
    assert {path.name for path in ran.folder.iterdir()} == {"small-wav2vec2", "corpus", "cache"}
    assert {path.name for path in (ran.folder / "cache").iterdir()} == {"hostile"}


def test_no_file_takes_much_memory(ran: Ran) -> None:
    def most() -> int:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (2**20 if sys.platform == "darwin" else 2**10)  # MiB

    before = most()
    for path in (ran.folder / "corpus").iterdir():
        for look in (probe, decode):
            with suppress(BadClipError):
                look(read_clip(path))
    assert most() - before < 500  # five minutes of audio take some
