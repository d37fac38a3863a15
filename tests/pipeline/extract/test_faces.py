"""Faces: found by a stub in place of YuNet, cropped elsewhere, or refused with a reason."""

import builtins
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mser import FeatureCache
from mser.pipeline.encoders import load_encoder
from mser.pipeline.encoders.frame_choice import FaceChoice, FrameChoice
from mser.pipeline.encoders.random_encoders import save_vision_encoder
from mser.pipeline.errors import UsageError
from mser.pipeline.extract import ExtractSettings, extract, faces
from mser.pipeline.extract.audio import BadClipError
from mser.pipeline.extract.faces import cropped, face_choice
from mser.tests.support.videos import pictures, write_video

STUB = FaceChoice("stub", "weights")


class Stub:
    """Finds a face where a frame has its brightest red block; none in a dark frame."""

    found: list[list[tuple[int, int, int, int]]]

    def __init__(self, weights: str) -> None:
        assert weights == "weights"
        self.left = iter(self.found)

    def faces(self, frame: Any) -> Any:
        return np.array(next(self.left), dtype=float).reshape(-1, 4)


def crops(monkeypatch: Any, found: Any, choice: FaceChoice = STUB, size: Any = (100, 200)) -> Any:
    monkeypatch.setattr(Stub, "found", found, raising=False)
    monkeypatch.setitem(faces.DETECTORS, "stub", Stub)
    shown = pictures(len(found), *size)
    whole: list[int] = []
    return shown, list(cropped(iter(shown), choice, lambda: whole.append(1))), whole


def test_the_largest_face_is_cropped_with_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, (frame,), whole = crops(monkeypatch, [[(5, 5, 8, 8), (100, 30, 20, 40)]])
    # The longer side 40, a quarter of it on each side: a square of 60 around (110, 50).
    np.testing.assert_array_equal(frame, shown[0, 20:80, 80:140])
    assert not whole


def test_a_face_is_followed_although_another_one_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [[(10, 20, 40, 40), (150, 40, 20, 20)], [(150, 30, 45, 45), (20, 20, 38, 40)]]
    shown, frames, _ = crops(monkeypatch, found)
    np.testing.assert_array_equal(frames[1], shown[1, 10:70, 9:69])


def test_a_frame_without_a_face_keeps_the_last_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [[], [(100, 30, 20, 40)], [], [(10, 10, 4, 4)]]
    shown, frames, whole = crops(monkeypatch, found)
    np.testing.assert_array_equal(frames[0], shown[0])  # whole before the first face
    np.testing.assert_array_equal(frames[2], shown[2, 20:80, 80:140])
    np.testing.assert_array_equal(frames[3], shown[3, 9:15, 9:15])  # a cut: none overlaps
    assert not whole


def test_a_crop_stays_in_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [[(-10, -10, 40, 40)], [(0, 0, 300, 300)]]
    shown, frames, _ = crops(monkeypatch, found)
    np.testing.assert_array_equal(frames[0], shown[0, :60, :60])
    assert frames[1].shape == (100, 100, 3)


def test_no_face_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, frames, whole = crops(monkeypatch, [[], []])
    np.testing.assert_array_equal(frames, shown)
    assert whole == [1]
    with pytest.raises(BadClipError, match="no-face"):
        crops(monkeypatch, [[]], FaceChoice("stub", "weights", absent="quarantine"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("faces") / "vit"
    return str(save_vision_encoder(folder, num_hidden_layers=1, image_size=16))


def settings(tmp_path: Path, vit: str, **more: Any) -> ExtractSettings:
    return ExtractSettings(
        "manifest",
        manifest=tmp_path / "a.csv",
        name="a",
        cache=tmp_path / "cache",
        encoders={"vision": vit},
        workers=0,
        dtype="float32",
        **more,
    )


def test_what_was_cropped_is_counted_and_part_of_the_identity(
    tmp_path: Path, vit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stub, "found", [[]] * 9, raising=False)
    monkeypatch.setitem(faces.DETECTORS, "stub", Stub)
    write_video(tmp_path / "a.mov", pictures(4, 16, 24))
    (tmp_path / "a.csv").write_text("id,video\na,a.mov\n")
    chosen = settings(tmp_path, vit)
    facts = (("version", "1"), ("sha256", "ab"))
    for absent in ("frame", "quarantine"):
        choice = FrameChoice(faces=FaceChoice("stub", "weights", facts, absent))
        monkeypatch.setitem(chosen.__dict__, "frames", choice)
        summary = extract(chosen)
        if absent == "frame":
            assert "no face was found: its frames are whole (1):\n    a" in str(summary)
            entry = FeatureCache(tmp_path / "cache").open("a")
            assert entry.spec.identity["faces"] == {
                **{"by": "stub", "version": "1", "sha256": "ab"},
                "no face": "frame",
            }
        else:
            (bad,) = summary.modalities[0].quarantined
            assert (bad.id, bad.reason) == ("a", "no-face")


def test_crops_made_elsewhere_are_found_by_utterance(tmp_path: Path, vit: str) -> None:
    (tmp_path / "a.csv").write_text("id,text\ntrain/u.1,x\ntrain/u2,y\nu3,z\n")
    folder = tmp_path / "crops"
    (folder / "train" / "u.1").mkdir(parents=True)
    shown = pictures(3, 16, 16)
    for number, picture in enumerate(shown):
        Image.fromarray(picture).save(folder / "train" / "u.1" / f"{number}.png")
    write_video(folder / "train" / "u2.mov", shown, rate=5)
    (vision,) = extract(settings(tmp_path, vit, faces=str(folder))).modalities
    assert [(bad.id, bad.reason) for bad in vision.quarantined] == [("u3", "absent")]
    entry = FeatureCache(tmp_path / "cache").open("a")
    (expected,) = load_encoder(vit, device="cpu").encode([shown])
    for id in ("train/u.1", "train/u2"):
        np.testing.assert_allclose(entry[id], expected, atol=1e-5)
    assert entry.spec.identity["faces"] == {"by": "folder"}


def test_a_value_that_is_none_of_these_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="faces 'yunett': give none, yunet, a folder of crops"):
        face_choice("yunett", "frame")
    with pytest.raises(UsageError, match="no_face"):
        ExtractSettings("meld", tmp_path, no_face="drop")


def test_yunet_without_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **others: Any) -> Any:
        if name == "cv2":
            raise ImportError(name)
        return real(name, *args, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'mser\[faces\]'"):
        face_choice("yunet", "frame")


def test_yunet_without_network_says_where_its_weights_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faces, "_opencv", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"cannot be downloaded: download .*2023mar\.onnx from"):
        face_choice("yunet", "frame")


def test_other_weights_than_those_known_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faces, "_opencv", lambda: None)
    weights = tmp_path / "own.onnx"
    weights.write_bytes(b"others")
    with pytest.raises(UsageError, match=r"own\.onnx is not face_detection_yunet_2023mar\.onnx"):
        face_choice(str(weights), "frame")
    with pytest.raises(UsageError, match=r"missing\.onnx cannot be read"):
        face_choice(str(tmp_path / "missing.onnx"), "frame")
    monkeypatch.setattr(faces, "_SHA256", hashlib.sha256(b"others").hexdigest())
    choice = face_choice(str(weights), "quarantine")
    assert choice.place == str(weights)
    assert json.loads(json.dumps(choice.as_json()))["margin"] == 0.25
