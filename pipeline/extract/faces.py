"""Crop the frames of a video to the face of the speaker.

The largest face of the first frame that shows one is followed: in each later frame the face is the
one that overlaps most with the last crop's face, or the largest if none overlaps. A frame without
a face keeps the last crop; before the first face, frames are whole. The crop is a square around
the middle of the face, ``MARGIN`` of the face's longer side wider on each side, and is moved and
shrunk to fit into the frame.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..encoders.frame_choice import WHOLE_FRAME, FaceChoice
from ..encoders.vision import Frame
from ..errors import UsageError
from .audio import BadClipError

MARGIN = 0.25
_REPOSITORY, _FILE = "opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"
_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_ADVICE = (
    f"download {_FILE} from https://huggingface.co/{_REPOSITORY} or "
    "https://github.com/opencv/opencv_zoo on a machine with access, and give the file with --faces"
)
_SCORE, _OVERLAP, _CANDIDATES = 0.6, 0.3, 5000  # of OpenCV's own demonstration, with a lower score
_LONGEST_SIDE = 640  # pixels of a frame in which faces are looked for

Boxes = NDArray[np.float64]


class Detector(Protocol):
    """Finds the faces of a frame."""

    def faces(self, frame: Frame) -> Boxes:
        """Return the faces of a frame (height, width, 3) uint8, RGB.

        Returns:
            (faces, 4): left, top, width and height of each, in pixels.
        """
        ...


class YuNet:
    """YuNet (Wu et al., Machine Intelligence Research 20, 2023) in OpenCV."""

    def __init__(self, weights: str) -> None:
        self.detector = _opencv().FaceDetectorYN.create(
            weights, "", (320, 320), _SCORE, _OVERLAP, _CANDIDATES
        )

    def faces(self, frame: Frame) -> Boxes:
        """Return the faces, see :class:`Detector`; a large frame is shrunk first."""
        height, width = frame.shape[:2]
        scale = min(1.0, _LONGEST_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        colours = np.ascontiguousarray(frame[:, :, ::-1])
        self.detector.setInputSize(size)
        _, found = self.detector.detect(_opencv().resize(colours, size))
        return np.zeros((0, 4)) if found is None else found[:, :4].astype(np.float64) / scale


DETECTORS: dict[str, Callable[[str], Detector]] = {"yunet": YuNet}
"""Name of a detector → what makes one of the file of its weights."""


def face_choice(faces: str, absent: str) -> FaceChoice:
    """Return the choice that ``--faces`` and ``--no-face`` stand for.

    Raises:
        UsageError: it is neither ``none``, ``yunet``, the file of its weights nor a folder; OpenCV
            is not installed; or the weights are not there, or are others.
    """
    if faces == WHOLE_FRAME:
        return FaceChoice(absent=absent)
    place = Path(faces).expanduser()
    if place.is_dir():
        return FaceChoice("folder", str(place.resolve()), absent=absent)
    if faces != "yunet" and place.suffix != ".onnx":
        raise UsageError(
            f"faces '{faces}': give none, yunet, a folder of crops, or the file {_FILE}"
        )
    _opencv()
    weights = _downloaded() if faces == "yunet" else place
    facts = {"version": "2023mar", "sha256": _checked(weights), "margin": MARGIN, "score": _SCORE}
    return FaceChoice("yunet", str(weights), tuple(facts.items()), absent)


def recorded_faces(identity: Mapping[str, Any]) -> FaceChoice:
    """Return the choice of faces that the identity of features records, for another video.

    For features of crops made elsewhere, the video must be such a crop: its frames are whole.

    Raises:
        UsageError: see :func:`face_choice`.
    """
    taken = identity.get("faces")
    if not isinstance(taken, Mapping):
        return FaceChoice()
    by = taken["by"]
    if by in DETECTORS:
        return face_choice(by, taken["no face"])
    return FaceChoice(by)


def cropped(
    frames: Iterable[Frame], choice: FaceChoice, on_whole: Callable[[], None]
) -> Iterator[Frame]:
    """Yield the frames cropped to the face that is followed.

    Args:
        frames: the frames.
        choice: the detector, and what to do without a face.
        on_whole: called if no frame shows a face, and all are whole.

    Raises:
        BadClipError: no frame shows a face, and the choice is to give the utterance up.
    """
    if not choice.detects:
        yield from frames
        return
    detector = DETECTORS[choice.by](choice.place or "")
    last: Boxes | None = None
    for frame in frames:
        last = _followed(detector.faces(frame), last)
        yield frame if last is None else _square(frame, last)
    if last is None:
        if choice.absent == "quarantine":
            raise BadClipError("no-face", f"{choice.by} finds no face in any of its frames")
        on_whole()


def _followed(faces: Boxes, last: Boxes | None) -> Boxes | None:
    """Return the face that overlaps most with the last one, else the largest, else the last one."""
    if not len(faces):
        return last
    if last is not None:
        shared = np.array([_overlap(face, last) for face in faces])
        if shared.max() > 0:
            return np.asarray(faces[shared.argmax()])
    return np.asarray(faces[(faces[:, 2] * faces[:, 3]).argmax()])


def _overlap(one: Boxes, other: Boxes) -> float:
    """Return the intersection over the union of two boxes."""
    begin = np.maximum(one[:2], other[:2])
    end = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = float(np.prod(np.clip(end - begin, 0, None)))
    return shared / float(np.prod(one[2:]) + np.prod(other[2:]) - shared)


def _square(frame: Frame, face: Boxes) -> Frame:
    height, width = frame.shape[:2]
    side = max(1, min(round(max(face[2:]) * (1 + 2 * MARGIN)), height, width))
    left, top = (
        min(max(0, round(face[axis] + face[2 + axis] / 2 - side / 2)), size - side)
        for axis, size in ((0, width), (1, height))
    )
    return frame[top : top + side, left : left + side]


def _opencv() -> Any:
    try:
        import cv2  # noqa: PLC0415 -- optional
    except ImportError:
        raise UsageError(
            "--faces yunet needs OpenCV, which is not installed: pip install 'mser[faces]'"
        ) from None
    return cv2


def _downloaded() -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 -- slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(hf_hub_download(_REPOSITORY, _FILE))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UsageError(f"the weights of YuNet cannot be downloaded: {_ADVICE}") from error


def _checked(weights: Path) -> str:
    """Return the hash of the weights, which must be those of the version that is known."""
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{weights} cannot be read ({error.strerror}): {_ADVICE}") from error
    if found != _SHA256:
        raise UsageError(f"{weights} is not {_FILE} (its SHA-256 is {found[:12]}…): {_ADVICE}")
    return found
