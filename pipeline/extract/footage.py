"""Read the footage of an utterance: hashed before the extraction, as pictures during it."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from ...cache import Quarantined
from ..corpora import Utterance
from ..corpora.utterance import Footage
from ..encoders import Encoder, FrameChoice
from ..encoders.frame_choice import FPS
from ..encoders.vision import Frame, Pictures, VisionEncoder
from .audio import BadClipError, open_clip, unreadable
from .crops import frames_in, hash_of_pictures, pictures_in
from .faces import cropped
from .video import chosen_frames, probe_video

_KNOWN_HASHES = 4096  # of files; the video of a dialogue is the source of many utterances


def scan_footage(utterance: Utterance) -> tuple[str, float] | Quarantined:
    """Return the hash of an utterance's footage and its length in seconds, or why it is unusable.

    The hash is that of the file, or of the file, the times and the side if it is only a part.
    """
    footage = utterance.footage
    assert footage is not None  # noqa: S101 -- only utterances that have a video
    content_hash = None
    try:
        if footage.path.is_dir():  # pictures, which have no times
            return hash_of_pictures(footage.path), len(pictures_in(footage.path)) / FPS
        with _opened(footage.path) as file:
            content_hash = _hash(file, footage)
            seconds = probe_video(file)
    except BadClipError as error:
        content_hash = None if error.transient else content_hash
        return Quarantined(utterance.id, content_hash, error.reason, error.detail)
    end = seconds if footage.end is None else footage.end
    return content_hash, max(0.0, end - (footage.start or 0.0))


def load_pictures(
    source: Footage | Path, content_hash: str | None, encoder: Encoder[Any]
) -> Pictures:
    """Decode the chosen frames of footage, and resize each for the encoder at once.

    Raises:
        BadClipError: the video cannot be used, or its content has another hash.
    """
    assert isinstance(encoder, VisionEncoder)  # noqa: S101 -- for the type
    footage = Footage(source) if isinstance(source, Path) else source
    whole: list[str] = []
    with _frames(footage, content_hash, encoder.choice) as frames:
        on_whole = partial(whole.append, "no face was found: its frames are whole")
        pictures = encoder.pictures(cropped(frames, encoder.choice.faces, on_whole))
    return pictures._replace(remark=whole[0] if whole else None)


@contextmanager
def _frames(
    footage: Footage, content_hash: str | None, choice: FrameChoice
) -> Iterator[Iterator[Frame]]:
    changed = BadClipError(
        "changed", f"{footage} changed during the run: run the same command again", transient=True
    )
    if footage.path.is_dir():
        if content_hash not in (None, hash_of_pictures(footage.path)):
            raise changed
        yield frames_in(footage.path, choice)
        return
    with _opened(footage.path) as file:
        if content_hash is not None and _hash(file, footage) != content_hash:
            raise changed
        yield chosen_frames(file, footage, choice)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_clip(path, "a video") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def _hash(file: BinaryIO, footage: Footage) -> str:
    status = os.fstat(file.fileno())
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    whole = _hash_of_file(footage.path, version)
    if footage == Footage(footage.path):
        return whole
    part = json.dumps([whole, footage.start, footage.end, footage.side])
    return hashlib.sha256(part.encode()).hexdigest()


@lru_cache(_KNOWN_HASHES)
def _hash_of_file(path: Path, version: tuple[int, ...]) -> str:
    """Return the SHA-256 of a version of a file, which is read once in a process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
