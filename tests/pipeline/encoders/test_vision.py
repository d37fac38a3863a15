"""Every vision family: the features of a frame equal a direct forward pass of it alone."""

import builtins
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mser.pipeline.encoders.frame_choice import FrameChoice
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import assert_same
from mser.tests.support.small_vision import (
    CLIP_FRAMES,
    FAMILIES,
    LAYERS,
    WIDTH,
    direct_clip,
    direct_pictures,
    film,
    save_vision,
)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("vision")
    return cache(lambda kind: save_vision(root / kind, kind))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "videomae"])
def test_a_frame_equals_a_direct_forward_pass(folder_of, kind):
    folder = folder_of(kind)
    videos = [film(2), film(1, 1), film(1, 3, 64, 30)]
    videos += [film(17, 2)] if kind == "clip" else []  # more than a batch
    encoder: Any = load_encoder(str(folder), device="cpu")
    for video, ours in zip(videos, encoder.encode(videos), strict=True):
        assert ours.shape == (LAYERS, encoder.frames(video), encoder.dim)
        assert_same(ours, direct_pictures(folder, kind, video))
    assert (encoder.modality, encoder.layers, encoder.dim) == ("vision", (0, 1, 2), 2 * WIDTH)


def test_a_clip_of_tubes_equals_a_direct_forward_pass(folder_of):
    folder = folder_of("videomae")
    encoder: Any = load_encoder(str(folder), device="cpu")
    video = film(CLIP_FRAMES)
    alone, shared = encoder.encode([video])[0], encoder.encode([film(7, 5), video, film(1)])[1]
    assert_same(alone, direct_clip(folder, video))
    assert_same(shared, alone)
    assert (encoder.modality, encoder.layers, encoder.dim) == ("vision", (0, 1, 2), WIDTH)


def test_a_longer_video_is_encoded_in_clips_that_overlap_by_half(folder_of):
    folder = folder_of("videomae")
    encoder: Any = load_encoder(str(folder), device="cpu")
    video = film(7)  # tubes 01 23 45 6-, the last frame twice
    (ours,) = encoder.encode([video])
    filled = np.concatenate([video, video[-1:]])
    clips = [direct_clip(folder, filled[start : start + CLIP_FRAMES]) for start in (0, 2, 4)]
    # Clips of two tubes that overlap by one: each cut is before or after the shared tube.
    assert ours.shape[1] == encoder.frames(video) == 4
    assert_same(ours[:, :1], clips[0][:, :1])
    assert_same(ours[:, -1:], clips[2][:, -1:])
    for tube in range(4):
        candidates = [clips[n][:, tube - n] for n in range(3) if tube - n in (0, 1)]
        errors = [np.abs(ours[:, tube] - one).max() for one in candidates]
        assert min(errors) < 1e-5


def test_a_short_video_repeats_its_last_frame(folder_of):
    folder = folder_of("videomae")
    video = film(1)
    (ours,) = load_encoder(str(folder), device="cpu").encode([video])
    assert ours.shape[1] == 1
    assert_same(ours, direct_clip(folder, video.repeat(CLIP_FRAMES, 0))[:, :1])


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=st.lists(st.integers(1, 18), min_size=1, max_size=3))
def test_any_batch_of_any_lengths(folder_of, lengths):
    encoder: Any = load_encoder(str(folder_of("clip")), device="cpu")
    videos = [film(length, number) for number, length in enumerate(lengths)]
    for video, ours in zip(videos, encoder.encode(videos), strict=True):
        for number, frame in enumerate(video):
            assert_same(ours[:, number : number + 1], encoder.encode([frame[None]])[0])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_not_a_frame_is_refused(folder_of, frame):
    with pytest.raises(UsageError, match=r"a frame has the shape .* of uint8, RGB"):
        load_encoder(str(folder_of("vit")), device="cpu").encode([[frame]])


def test_the_choice_of_frames_is_part_of_the_identity(folder_of):
    folder = str(folder_of("vit"))
    identities = [
        load_encoder(folder, device="cpu", frames=frames).identity
        for frames in (FrameChoice(), FrameChoice(2), FrameChoice(number=8))
    ]
    assert [one["frames"] for one in identities] == [{"fps": 5.0}, {"fps": 2.0}, {"number": 8}]
    assert len({json.dumps(one, sort_keys=True) for one in identities}) == 3


def test_a_folder_without_an_image_processor_is_one_sentence(folder_of, tmp_path):
    folder = save_vision(tmp_path / "vit", "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PipelineError, match=r"the image processor in .* cannot be loaded"):
        load_encoder(str(folder), device="cpu")


def test_without_pillow_the_extra_is_named(folder_of, monkeypatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **others: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'mser\[vision\]'"):
        load_encoder(str(folder_of("vit")), device="cpu")
