"""The time left of an extraction, by the work of each modality."""

from types import SimpleNamespace
from typing import Any

import pytest

from mser.pipeline.extract.work_done import WorkDone


def job(modality: str, utterances: int, frames: int, seconds: float = 0.0) -> Any:
    """A job of equal utterances."""
    items = [SimpleNamespace(frames=frames, seconds=seconds)] * utterances
    return SimpleNamespace(
        items=items, writer=SimpleNamespace(spec=SimpleNamespace(modality=modality))
    )


def test_the_time_left_follows_from_the_speed_of_each_modality() -> None:
    now = [1000.0]
    speech = [job("speech", 2, frames=50, seconds=30.0), job("speech", 4, frames=25, seconds=15.0)]
    text = [job("text", 10, frames=4), job("text", 10, frames=4)]
    work = WorkDone([*speech, *text], lambda: now[0])
    assert (work.share, work.seconds_left) == (0.0, None)
    assert str(work) == "first shards, speech 0.0 of 2.0 min, text 0 of 20"
    now[0] += 10.0  # 100 of 200 frames of speech: 10 frames a second
    work.add(speech[0])
    assert work.seconds_left == pytest.approx(100 / 10 + 80 / 10)
    assert work.share == pytest.approx(10 / 28)
    assert str(work) == "18 s left, speech 1.0 of 2.0 min (6.0 x real time), text 0 of 20"
    now[0] += 10.0
    work.add(speech[1])
    now[0] += 2.0  # 40 of 80 frames of text: 20 frames a second
    work.add(text[0])
    assert work.seconds_left == pytest.approx(40 / 20)
    assert str(work) == "2 s left, speech 2.0 of 2.0 min (6.0 x real time), text 10 of 20"
    now[0] += 1.0
    work.add(text[1])
    assert (work.share, work.seconds_left) == (1.0, 0.0)


def test_hours_are_hours() -> None:
    assert "speech 0.0 of 10.0 h" in str(WorkDone([job("speech", 3600, 500, 10.0)]))
