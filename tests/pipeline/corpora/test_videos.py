"""Where each corpus has its videos, and how the cache keeps them."""

from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.corpora import Corpus, Utterance, crema_d, iemocap, meld
from mser.pipeline.corpora.manifest import COLUMNS, content_hashes, from_table, to_table
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.corpora.utterance import Footage
from mser.pipeline.errors import PipelineError
from mser.tests.support import iemocap_tree
from mser.tests.support.crema_d_tree import write_crema_d


def test_iemocap_shows_the_part_and_the_half_of_the_speaker(tmp_path: Path) -> None:
    root = iemocap_tree.write_iemocap(tmp_path / "IEMOCAP")
    assert all(utterance.footage is None for utterance in iemocap.load(root).utterances)
    for session in (1, 5):
        (root / f"Session{session}" / "dialog" / "avi" / "DivX").mkdir(parents=True)
    found = {utterance.id: utterance.footage for utterance in iemocap.load(root).utterances}
    videos = root / "Session1" / "dialog" / "avi" / "DivX"
    # F is named in the dialogue Ses01F_impro01 and wears the markers: she is on the left.
    film = videos / "Ses01F_impro01.avi"
    assert found["Ses01F_impro01_F000"] == Footage(film, 6.2901, 8.2357, "left")
    assert found["Ses01F_impro01_M000"] == Footage(film, 7.5712, 10.475, "right")
    film = videos / "Ses01M_script02_1.avi"
    assert found["Ses01M_script02_1_F000"] == Footage(film, 3.1, 4.0, "right")
    assert found["Ses01M_script02_1_M000"] == Footage(film, 4.2, 5.9, "left")
    assert found["Ses02F_impro03_F000"] is None  # its session has no videos


def test_crema_d_and_meld_have_a_video_for_each_clip(tmp_path: Path, meld_original: Path) -> None:
    root = write_crema_d(tmp_path / "crema-d")
    for utterance in crema_d.load(root).utterances:
        assert utterance.footage == Footage(root / "VideoFlash" / f"{utterance.id}.flv")
    (root / "VideoFlash" / "1001_IEO_ANG_HI.flv").unlink()
    (root / "VideoFlash").rmdir()
    assert {utterance.video for utterance in crema_d.load(root).utterances} == {None}
    for utterance in meld.load(meld_original).utterances:
        assert utterance.video == utterance.audio


def test_the_manifest_in_the_cache_has_the_columns_of_videos_only_with_videos() -> None:
    def table(**video: Any) -> Any:
        utterance = Utterance("a", None, "x", "b", None, None, None, None, None, **video)
        return to_table(
            Corpus("c", [utterance], ("b",), "official"), Path("/r"), {}, {}, {"a": "h"}
        )

    without = table()
    assert without.column_names == list(COLUMNS)
    assert content_hashes(without, "video") == {}
    filmed = table(video=Path("/r/v/a.mp4"), video_start=1.5, video_end=2.0, video_side="left")
    (kept,) = from_table(filmed)[0].utterances
    assert kept.footage == Footage(Path("v/a.mp4"), 1.5, 2.0, "left")
    assert content_hashes(filmed, "video") == {"a": "h"}
    assert content_hashes(filmed, "text") == {}


def test_the_digest_of_an_utterance_does_not_depend_on_its_video() -> None:
    """Run folders that were made before there were videos continue."""
    utterance = Utterance(
        "a", None, "x", "b", None, None, None, None, None, video=Path("v.mp4"), video_start=1.0
    )
    assert repr(utterance) == (
        "Utterance(id='a', audio=None, text='x', label='b', speaker=None, session=None, "
        "dialogue=None, turn=None, split=None)"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,-1,2,left", "its video_start is '-1': write seconds, such as 6.29"),
        ("a.mp4,soon,2,left", "its video_start is 'soon': write seconds"),
        ("a.mp4,nan,2,left", "its video_start is 'nan': write seconds"),
        ("a.mp4,3,2,left", "its video_end is 2: write a time after video_start"),
        ("a.mp4,1,2,middle", "its video_side is 'middle': write left or right"),
    ],
)
def test_a_wrong_cell_is_refused(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,video,video_start,video_end,video_side\na,{row}\n")
    with pytest.raises(PipelineError, match=message):
        read_manifest(path, "mine")


def test_the_columns_of_videos_of_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,video,video_start,video_end,video_side\na,v/a.mp4,0.5,,Right\nb,,,,\n")
    first, second = read_manifest(path, "mine").utterances
    assert first.footage == Footage(tmp_path / "v" / "a.mp4", 0.5, None, "right")
    assert second.footage is None
