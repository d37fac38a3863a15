"""The frames that are taken of a video are those that it shows at the chosen times."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.corpora.utterance import Footage
from mser.pipeline.encoders.frame_choice import FrameChoice
from mser.pipeline.extract.audio import BadClipError
from mser.pipeline.extract.video import chosen_frames, probe_video
from mser.tests.support.videos import LOSSLESS, pictures, write_video


def taken(path: Path, choice: FrameChoice, **part: Any) -> Any:
    with path.open("rb") as file:
        return np.stack(list(chosen_frames(file, Footage(path, **part), choice)))


def numbers(frames: Any, shown: Any) -> list[int]:
    """The number of the picture that each frame is, byte for byte."""
    return [next(i for i, one in enumerate(shown) if np.array_equal(one, f)) for f in frames]


def test_a_fixed_rate_takes_what_is_shown_at_each_step(tmp_path: Path) -> None:
    shown = pictures(10)
    path = write_video(tmp_path / "a.mov", shown, rate=10)
    assert numbers(taken(path, FrameChoice(10)), shown) == [*range(10)]
    assert numbers(taken(path, FrameChoice(5)), shown) == [0, 2, 4, 6, 8]
    assert numbers(taken(path, FrameChoice(3)), shown) == [0, 3, 6]  # at 0, 333 and 667 ms
    assert numbers(taken(path, FrameChoice(20)), shown) == [i // 2 for i in range(20)]
    with path.open("rb") as file:
        assert probe_video(file) == pytest.approx(1.0)


def test_a_number_takes_the_middle_of_each_part(tmp_path: Path) -> None:
    shown = pictures(10)
    path = write_video(tmp_path / "a.mov", shown, rate=10)
    assert numbers(taken(path, FrameChoice(number=1)), shown) == [5]
    assert numbers(taken(path, FrameChoice(number=2)), shown) == [2, 7]
    assert numbers(taken(path, FrameChoice(number=4)), shown) == [1, 3, 6, 8]
    assert len(taken(path, FrameChoice(number=25))) == 25


@settings(max_examples=8, deadline=None)
@given(
    gaps=st.lists(st.integers(20, 700), min_size=1, max_size=8),
    fps=st.sampled_from([1.0, 2.5, 7.0, 30.0]),
    start=st.integers(0, 500),
)
def test_a_variable_frame_rate(tmp_path_factory: Any, gaps: Any, fps: float, start: int) -> None:
    begins = [start, *(start + np.cumsum(gaps)).tolist()]  # in ms; begins after 0 s
    shown = pictures(len(begins), 8, 10)
    path = tmp_path_factory.mktemp("vfr") / "a.mkv"
    write_video(path, shown, [begin / 1000 for begin in begins], **LOSSLESS)
    frames = taken(path, FrameChoice(fps))
    # How long the last picture is shown is up to the container, so it may come more often.
    steps = [start + 1000 * i / fps for i in range(len(frames))]
    expected = [max(n for n, begin in enumerate(begins) if begin <= step + 0.5) for step in steps]
    assert numbers(frames, shown) == expected
    assert steps[-1] + 1000 / fps >= begins[-1]


def test_a_part_of_a_video_is_reached_by_its_times(tmp_path: Path) -> None:
    shown = pictures(60, 16, 16)
    path = write_video(tmp_path / "a.mov", shown, rate=10)
    part = {"start": 2.05, "end": 3.05}
    assert numbers(taken(path, FrameChoice(5), **part), shown) == [20, 22, 24, 26, 28]
    assert numbers(taken(path, FrameChoice(number=2), **part), shown) == [23, 28]
    # It ends with the video; the other end is open.
    assert numbers(taken(path, FrameChoice(5), start=5.8, end=9.0), shown) == [58]
    assert numbers(taken(path, FrameChoice(1), end=2.0), shown) == [0, 10]
    with pytest.raises(BadClipError, match=r"ends after 6\.0 s, before the utterance begins"):
        taken(path, FrameChoice(5), start=6.5, end=7.0)


def test_a_part_is_the_same_with_key_frames_far_apart(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(0, 240, 4, dtype=np.uint8), 3 * 32 * 32).reshape(60, 32, 32, 3)
    for name, codec, more in (
        ("a.avi", "mpeg4", {"g": "300", "bf": "0"}),
        ("a.mp4", "mpeg4", {"g": "300", "bf": "2"}),
        ("a.flv", "flv", {"g": "300"}),
    ):
        path = write_video(
            tmp_path / name, grey, rate=10, codec=codec, pixels="yuv420p", options=more
        )
        whole = taken(path, FrameChoice(10)).astype(float).mean((1, 2, 3))
        part = taken(path, FrameChoice(10), start=3.0, end=5.0).astype(float).mean((1, 2, 3))
        assert len(part) == 20, name
        np.testing.assert_allclose(part, whole[30:50], atol=0.01, err_msg=name)
        np.testing.assert_allclose(part, grey[30:50, 0, 0, 0], atol=6, err_msg=name)


def test_times_that_the_container_rounds(tmp_path: Path) -> None:
    """Matroska has milliseconds: 33, 67 and 100 at 30 frames a second."""
    shown = pictures(30, 8, 10)
    path = write_video(tmp_path / "a.mkv", shown, rate=30, **LOSSLESS)
    assert numbers(taken(path, FrameChoice(30)), shown) == [*range(30)]


def test_the_halves_of_a_picture(tmp_path: Path) -> None:
    shown = pictures(2, 8, 12)
    path = write_video(tmp_path / "a.mov", shown)
    np.testing.assert_array_equal(taken(path, FrameChoice(10), side="left"), shown[:, :, :6])
    np.testing.assert_array_equal(taken(path, FrameChoice(10), side="right"), shown[:, :, 6:])


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_a_rotated_video_is_turned_upright(tmp_path: Path, rotation: int, turns: int) -> None:
    shown = pictures(2, 8, 12)
    path = write_video(tmp_path / "a.mov", shown, rotation=rotation)
    np.testing.assert_array_equal(taken(path, FrameChoice(10)), np.rot90(shown, turns, (1, 2)))


def test_pixels_that_are_not_square_are_widened(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W12 H8 F10:1 A4:3 Cmono\nFRAME\n" + bytes([126] * 96))
    frames = taken(path, FrameChoice(10))
    assert frames.shape == (1, 8, 16, 3)
    assert (frames == 126).all()


def test_a_frame_takes_no_more_memory_than_itself(tmp_path: Path) -> None:
    """The frames come one after the other, not in a list."""
    path = write_video(tmp_path / "a.mov", pictures(5))
    with path.open("rb") as file:
        frames = chosen_frames(file, Footage(path), FrameChoice(10))
        assert iter(frames) is frames
        next(frames)
