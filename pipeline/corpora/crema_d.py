"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014), a clone of its repository.

    ROOT/AudioWAV/1001_DFA_ANG_XX.wav      actor, sentence, emotion, level (or ROOT is AudioWAV)
    ROOT/VideoFlash/1001_DFA_ANG_XX.flv    the video of the same clip, if there is such a folder
    ROOT/SentenceFilenames.csv             the names of all clips; often missing in copies

The label is the emotion that the actor was asked to express, from the file name. It is not the
emotion that listeners perceived, which is in ``processedResults``: from the voice alone, they
recognised the intended emotion in 41 % of the cases.

Known faults: ``1076_MTI_SAD_XX`` is digital silence, ``1076_MTI_NEU_XX`` and ``1064_TIE_SAD_XX``
are nearly silent, ``1064_IEO_DIS_MD`` lasts a minute and contains several emotions, and three pairs
of clips are the same audio under two labels. Older copies name one clip ``1040_ITH_SAD_X``; its id
here is ``1040_ITH_SAD_XX``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import PipelineError
from .git_lfs import is_pointer
from .tables import read_table
from .utterance import Corpus, PublishedCounts, Utterance

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}

_PUBLISHED = PublishedCounts(
    "Cao et al. 2014, 7442 clips of 91 actors",
    "label",
    dict.fromkeys(EMOTIONS.values(), 1271) | {"neutral": 1087},
)
_NAME = re.compile(rf"([0-9]{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_(LO|MD|HI|XX?)")
_TABLE = "SentenceFilenames.csv"
_VIDEOS = "VideoFlash"


def load(root: Path) -> Corpus:
    """Read CREMA-D from the folder ``root``; a clip that only the table names counts as absent.

    Raises:
        PipelineError: there is no folder of clips, or the table of clips is not that of CREMA-D.
    """
    folder = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    clips: dict[str, Path] = {}
    ignored: list[tuple[Path, str]] = []
    # In reverse order, so that a name with XX comes before its older form with X.
    for path in sorted((path for path in folder.iterdir() if path.is_file()), reverse=True):
        id = _id(path.stem) if path.suffix.lower() == ".wav" else None
        if path.name.startswith("._"):
            ignored.append((path, "a macOS companion file, not a clip"))
        elif id is None:
            ignored.append((path, "not a clip name: ACTOR_SENTENCE_EMOTION_LEVEL.wav"))
        elif id in clips:
            ignored.append((path, f"the same clip as {clips[id].name}"))
        else:
            clips[id] = path
    if not clips:
        raise PipelineError(
            f"{root} is not CREMA-D: it contains no 'AudioWAV' with clips such as "
            "1001_DFA_ANG_XX.wav; give the folder of the cloned repository"
        )
    pointers = sum(map(is_pointer, clips.values()))
    note = f"{pointers} of {len(clips)} clips are Git LFS pointers, not audio: "
    note += f"run 'git lfs pull' in {root}"
    for id in _listed(folder.parent / _TABLE):
        clips.setdefault(id, folder / f"{id}.wav")
    videos = folder.parent / _VIDEOS
    filmed = videos.is_dir()
    return Corpus(
        "crema-d",
        [
            _utterance(id, clips[id], videos / f"{id}.flv" if filmed else None)
            for id in sorted(clips)
        ],
        tuple(EMOTIONS.values()),
        "speaker-folds",
        sorted(ignored),
        (note,) if pointers else (),
        published=(_PUBLISHED,),
    )


def _id(name: str) -> str | None:
    match = _NAME.fullmatch(name)
    return "{}_{}_{}_{}".format(*match.groups()[:3], match[4].ljust(2, "X")) if match else None


def _listed(table: Path) -> Iterator[str]:
    """Yield the ids in the table of clips, if there is one."""
    if not table.exists():
        return
    for place, row in read_table(table, ("Filename",), required=("Filename",)):
        id = _id(row["Filename"])
        if id is None:
            raise PipelineError(
                f"{table}, {place}: its Filename is not a clip of CREMA-D: take the file from the "
                "release again"
            )
        yield id


def _utterance(id: str, clip: Path, video: Path | None) -> Utterance:
    actor, sentence, emotion, _ = id.split("_")
    return Utterance(
        id=id,
        audio=clip,
        text=SENTENCES[sentence],
        label=EMOTIONS[emotion],
        speaker=actor,
        session=None,
        dialogue=None,
        turn=None,
        split=None,
        video=video,
    )
