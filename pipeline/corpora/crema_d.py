"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014), a clone of its repository.

    ROOT/AudioWAV/1001_DFA_ANG_XX.wav      actor, sentence, emotion, level (or ROOT is AudioWAV)
    ROOT/VideoFlash/1001_DFA_ANG_XX.flv    the video of the same clip, if there is such a folder
    ROOT/SentenceFilenames.csv             the names of all clips; often missing in copies
    ROOT/processedResults/tabulatedVotes.csv   the listeners' votes; often missing in copies

The label is the emotion that the actor was asked to express, from the file name. It is not the
emotion that listeners perceived: from the voice alone, they recognised the intended emotion in 41 %
of the cases. The votes of an utterance are those of the listeners who only heard the voice. The
columns ``perceived_voice``, ``perceived_face`` and ``perceived_both`` are the emotions that had
the most votes from the voice, the silent video and both; a tie has no value.

Known faults: ``1076_MTI_SAD_XX`` is digital silence, ``1076_MTI_NEU_XX`` and ``1064_TIE_SAD_XX``
are nearly silent, ``1064_IEO_DIS_MD`` lasts a minute and contains several emotions, and three pairs
of clips are the same audio under two labels. Older copies name one clip ``1040_ITH_SAD_X``; its id
here is ``1040_ITH_SAD_XX``.
"""

import re
from collections.abc import Iterator, Mapping
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
_SHOWN = {"1": "voice", "2": "face", "3": "both"}
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
    votes = _votes(folder.parent / "processedResults" / "tabulatedVotes.csv")
    videos = folder.parent / _VIDEOS
    filmed = videos.is_dir()
    return Corpus(
        "crema-d",
        [
            _utterance(
                id,
                clips[id],
                votes["voice"].get(id, {}),
                videos / f"{id}.flv" if filmed else None,
            )
            for id in sorted(clips)
        ],
        tuple(EMOTIONS.values()),
        "speaker-folds",
        sorted(ignored),
        (note,) if pointers else (),
        published=(_PUBLISHED,),
        columns={
            f"perceived_{kind}": perceived
            for kind, of_kind in votes.items()
            if (perceived := {id: best for id in clips if (best := _most(of_kind.get(id, {})))})
        },
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


def _votes(table: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return ``voice``, ``face`` and ``both`` → id → emotion → votes.

    The number of a row, in the column without a name, begins with a digit for what was shown: 1 is
    the voice alone, 2 the face alone, 3 both.
    """
    votes: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in _SHOWN.values()}
    if not table.exists():
        return votes
    letters = {code[0]: emotion for code, emotion in EMOTIONS.items()}
    for place, row in read_table(table, required=("", "fileName", *letters)):
        id, kind = _id(row["fileName"]), _SHOWN.get(row[""][:1])
        try:
            counts = {emotion: float(row[letter]) for letter, emotion in letters.items()}
        except ValueError:
            counts = {}
        if id is None or kind is None or not counts or not all(n >= 0 for n in counts.values()):
            raise PipelineError(
                f"{table}, {place}: it is not a row of CREMA-D's votes: take the file from the "
                "release again"
            )
        votes[kind][id] = counts
    return votes


def _most(votes: Mapping[str, float]) -> str | None:
    """Return the emotion with the most votes; ``None`` if there is no single one."""
    best = max(votes.values(), default=0.0)
    winners = [emotion for emotion, number in votes.items() if number == best and best > 0]
    return winners[0] if len(winners) == 1 else None


def _utterance(id: str, clip: Path, votes: Mapping[str, float], video: Path | None) -> Utterance:
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
        votes=votes,
        video=video,
    )
