"""Every video of a hostile corpus is extracted correctly or named with a reason."""

import re
from pathlib import Path

import pytest

from mser import FeatureCache
from mser.pipeline.encoders.random_encoders import save_vision_encoder
from mser.pipeline.extract import ExtractSettings, Summary, extract
from mser.tests.support import hostile_videos
from mser.tests.support.hostile_videos import Outcome

PYTHON = re.compile(r"Error\b|Exception|Errno|Traceback|None|<|\bav\b|numpy|torch")


class Ran:
    """A run over the corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        encoder = save_vision_encoder(folder / "vit", num_hidden_layers=1, image_size=16)
        (folder / "corpus").mkdir()
        self.manifest, self.outcomes = hostile_videos.make(folder / "corpus")
        self.summary: Summary = extract(
            ExtractSettings(
                "manifest",
                manifest=self.manifest,
                name="hostile",
                cache=folder / "cache",
                encoders={"vision": str(encoder)},
                device="cpu",
                workers=0,
            )
        )
        self.entry = FeatureCache(folder / "cache").open("hostile")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("hostile"))


def test_every_video_is_extracted_or_in_quarantine(ran: Ran) -> None:
    (vision,) = ran.summary.modalities
    found: dict[str, Outcome] = {bad.id: bad.reason for bad in vision.quarantined}
    found |= {id: ran.entry.length(id) for id in ran.entry.ids}
    assert found == ran.outcomes
    assert len(ran.outcomes) >= 40


def test_every_detail_is_a_sentence(ran: Ran) -> None:
    for bad in ran.summary.modalities[0].quarantined:
        assert len(bad.detail.split()) >= 4
        assert not PYTHON.search(bad.detail.replace(str(ran.folder), "")), bad.detail
