"""RAVDESS (Livingstone and Russo, PLoS ONE 13(5), 2018), the speech part.

    ROOT/Actor_01/03-01-05-02-01-01-01.wav     (or any folder that contains the actors' folders)

The parts of a file name are modality (01 audio and video, 02 video, 03 audio), channel (01 speech,
02 song), emotion, intensity (01 normal, 02 strong), statement, repetition and actor. An utterance
is a spoken clip; if a clip is there both as audio and with video, the audio is taken. Songs and
videos without sound are listed as ignored. A common copy contains every clip twice, in a second
folder: the copy in the deeper folder is ignored.

Neutral has one intensity, so it has half as many clips as every other emotion. ``calm`` was added
because actors and listeners may take neutral for negative; the class set ``7`` merges it into
neutral.
"""

import re
from pathlib import Path

from ..errors import PipelineError
from .directory_walk import folders_below
from .utterance import Corpus, PublishedCounts, Utterance

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
CLASS_SETS = {
    "8": {name: name for name in EMOTIONS.values()},
    "7": {name: "neutral" if name == "calm" else name for name in EMOTIONS.values()},
}
_SOURCE = "Livingstone and Russo 2018, 1440 spoken clips of 24 actors"
PUBLISHED = (
    PublishedCounts(_SOURCE, "label", dict.fromkeys(EMOTIONS.values(), 192) | {"neutral": 96}),
)
_NAME = re.compile(r"0[123]-0[12]-0[1-8]-0[12]-0[12]-0[12]-(?:0[1-9]|1[0-9]|2[0-4])")
_SOUND = ("03", "01")  # the modalities with sound, the preferred one first


def load(root: Path) -> Corpus:
    """Read the speech part of RAVDESS from the folder ``root``.

    The id of an utterance is the name of its audio, ``03-01-…``. The protocol is ``speaker-folds``.

    Raises:
        PipelineError: there is no spoken clip.
    """
    clips: dict[str, Path] = {}
    ignored: list[tuple[Path, str]] = []
    for path in _in_order(root):
        name = path.stem
        if path.name.startswith("._"):
            ignored.append((path, "a macOS companion file, not a clip"))
        elif _NAME.fullmatch(name) is None:
            ignored.append((path, "not a clip name: 03-01-EMOTION-INTENSITY-STATEMENT-…-ACTOR"))
        elif name[3:5] == "02":
            ignored.append((path, "a song"))
        elif name[:2] not in _SOUND:
            ignored.append((path, "a video without sound"))
        elif (id := f"03{name[2:]}") in clips:
            ignored.append((path, f"the same clip as {clips[id].relative_to(root)}"))
        else:
            clips[id] = path
    if not clips:
        raise PipelineError(
            f"{root} is not the speech part of RAVDESS: it contains no clip such as "
            "Actor_01/03-01-05-02-01-01-01.wav; give the folder with the actors' folders"
        )
    return Corpus(
        "ravdess",
        [_utterance(id, clips[id]) for id in sorted(clips)],
        tuple(EMOTIONS.values()),
        "speaker-folds",
        sorted(ignored),
        class_sets=CLASS_SETS,
        published=PUBLISHED,
        columns={"intensity": {id: ("normal", "strong")[id[9:11] == "02"] for id in clips}},
    )


def _in_order(root: Path) -> list[Path]:
    """Return the media below ``root``: audio before video, then the shallowest copy first."""
    media = [
        folder / name
        for folder, _, names in folders_below(root)
        for name in names
        if name.lower().endswith((".wav", ".mp4", ".flac"))
    ]
    return sorted(media, key=lambda path: (path.name[:2] != "03", len(path.parts), path))


def _utterance(id: str, clip: Path) -> Utterance:
    _, _, emotion, _, statement, _, actor = id.split("-")
    return Utterance(
        id=id,
        audio=clip,
        text=STATEMENTS[statement],
        label=EMOTIONS[emotion],
        speaker=actor,
        session=None,
        dialogue=None,
        turn=None,
        split=None,
    )
