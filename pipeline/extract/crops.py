"""Crops of faces that were made elsewhere: a folder with a video or pictures for each utterance.

    FOLDER/ID.mp4            a video, of any container
    FOLDER/ID/000001.jpg     pictures in the order of their names, all of which are frames

An id such as ``train/dia0_utt3`` is a path below the folder.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..corpora import Corpus
from ..corpora.directory_walk import folders_below
from ..encoders.frame_choice import FaceChoice, FrameChoice
from ..encoders.vision import Frame
from .audio import BadClipError

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def with_crops(corpus: Corpus, choice: FaceChoice) -> Corpus:
    """Return the corpus with the crops of a folder as its videos, if that is the choice.

    The crop of an utterance that has none is a path that does not exist.
    """
    if choice.by != "folder" or choice.place is None:
        return corpus
    folder = Path(choice.place)
    crops: dict[str, Path] = {}
    for above, folders, files in folders_below(folder):
        place = above.relative_to(folder)
        crops |= {str(place / Path(name).stem): above / name for name in files}
        crops |= {str(place / name): above / name for name in folders}
    utterances = [
        replace(
            utterance,
            video=crops.get(utterance.id, folder / utterance.id),
            video_start=None,
            video_end=None,
            video_side=None,
        )
        for utterance in corpus.utterances
    ]
    return replace(corpus, utterances=utterances)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def hash_of_pictures(folder: Path) -> str:
    """Return a hash of the names and the contents of the pictures.

    Raises:
        BadClipError: there are no pictures.
    """
    paths = pictures_in(folder)
    if not paths:
        raise BadClipError("empty", f"the folder {folder} holds no pictures")
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return total.hexdigest()


def frames_in(folder: Path, choice: FrameChoice) -> Iterator[Frame]:
    """Yield the pictures of a folder, (height, width, 3) uint8, RGB.

    Pictures have no times: all are taken, or with a ``number`` those in the middle of its parts.

    Raises:
        BadClipError: a picture cannot be read.
    """
    from PIL import Image  # noqa: PLC0415 -- optional

    paths = pictures_in(folder)
    if choice.number is not None:
        count, parts = len(paths), choice.number
        paths = [paths[count * (2 * i + 1) // (2 * parts)] for i in range(parts)]
    for path in paths:
        try:
            with Image.open(path) as picture:
                yield np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadClipError("unreadable", f"the picture {path} is damaged") from error
