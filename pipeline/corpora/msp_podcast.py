"""MSP-Podcast (Lotfian and Busso, IEEE Transactions on Affective Computing 10(4), 2019).

    ROOT/Labels/labels_consensus.csv            FileName, EmoClass, …, SpkrID, Gender, Split_Set
    ROOT/Audios/MSP-PODCAST_0001_0008.wav       (in older releases ROOT/Audio)
    ROOT/Transcripts/MSP-PODCAST_0001_0008.txt

An utterance is a line of the consensus labels, or a clip ``MSP-PODCAST_test3_…`` that has no line:
the labels and speakers of Test3 are not public. The partitions are Train, Development, Test1, Test2
and Test3; each test part is tested apart. A speaker ``Unknown`` is not one speaker, so such
utterances have none. Parts of one podcast may be in several partitions, so a podcast is a column
for the leakage check (``podcast``) and not a dialogue.

Attributes are ``arousal``, ``valence`` and ``dominance``, from 1 to 7.

``O`` (other) and ``X`` (no agreement) are not emotions: the class sets ``9`` and ``10`` add them.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from ..errors import PipelineError
from .tables import read_table
from .utterance import Corpus, Utterance

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
_EIGHT = tuple(EMOTIONS.values())[:8]
CLASS_SETS = {
    "8": {name: name for name in _EIGHT},
    "4": {name: name for name in ("angry", "sad", "happy", "neutral")},
    "5": {name: name for name in ("angry", "sad", "happy", "neutral", "disgust")},
    "9": {name: name for name in (*_EIGHT, "other")},
    "10": {name: name for name in EMOTIONS.values()},
}
SPLITS = {
    "Train": "train",
    "Development": "validation",
    "Test1": "test1",
    "Test2": "test2",
    "Test3": "test3",
}
ATTRIBUTES = {"EmoAct": "arousal", "EmoVal": "valence", "EmoDom": "dominance"}
_COLUMNS = ("FileName", "EmoClass", "SpkrID", "Split_Set")
_LABELS = "labels_consensus.csv"
_CLIP = re.compile(r"MSP-PODCAST_(?P<podcast>[0-9]+|test3)_[0-9_]+")


def load(root: Path) -> Corpus:
    """Read MSP-Podcast from the folder ``root``. The protocol is ``official``.

    Notes name the partitions that share speakers.

    Raises:
        PipelineError: the file of labels or the folder of clips is missing, or a line of the file
            is not that of MSP-Podcast.
    """
    labels = _labels_file(root)
    release = labels.parent.parent if labels.parent.name == "Labels" else labels.parent
    clips = next((p for n in ("Audios", "Audio") if (p := release / n).is_dir()), None)
    if clips is None:
        raise PipelineError(
            f"{release} has no folder 'Audios' with the clips of MSP-Podcast: unpack it beside "
            f"{labels.parent.name}"
        )
    utterances = list(_utterances(labels, clips, release / "Transcripts"))
    known = {utterance.id for utterance in utterances}
    ignored: list[tuple[Path, str]] = []
    for path in sorted(clips.glob("*.wav")):
        match = _CLIP.fullmatch(path.stem)
        if path.stem in known:
            continue
        if match and match["podcast"] == "test3":
            utterances.append(_utterance(path, None, None, None, "test3"))
        else:
            ignored.append((path, "not in the labels"))
    podcasts = {u.id: match[1] for u in utterances if (match := _CLIP.fullmatch(u.id))}
    return Corpus(
        "msp-podcast",
        utterances,
        (*_EIGHT, "other"),
        "official",
        ignored,
        tuple(_notes(utterances)),
        CLASS_SETS,
        columns={"podcast": podcasts},
    )


def _labels_file(root: Path) -> Path:
    for pattern in (_LABELS, f"Labels/{_LABELS}", f"*/Labels/{_LABELS}"):
        if paths := sorted(root.glob(pattern)):
            return paths[0]
    raise PipelineError(
        f"{root} is not MSP-Podcast: it contains no Labels/{_LABELS}; give the folder that "
        "contains 'Labels' and 'Audios'"
    )


def _utterances(labels: Path, clips: Path, transcripts: Path) -> Iterator[Utterance]:
    for place, row in read_table(labels, _COLUMNS, required=_COLUMNS):
        try:
            yield _labelled(row, clips, transcripts)
        except ValueError as error:
            raise PipelineError(
                f"{labels}, {place}: {error}: take the file from the release again"
            ) from error


def _labelled(row: Mapping[str, str], clips: Path, transcripts: Path) -> Utterance:
    name, letter, part = (row[column].strip() for column in ("FileName", "EmoClass", "Split_Set"))
    if part not in SPLITS:
        raise ValueError(f"'{part}' is not a partition of MSP-Podcast ({', '.join(SPLITS)})")
    if letter not in EMOTIONS and (letter or part != "Test3"):
        raise ValueError(f"'{letter}' is not an emotion of MSP-Podcast ({', '.join(EMOTIONS)})")
    clip = clips / name
    if _CLIP.fullmatch(clip.stem) is None:
        raise ValueError(f"'{name}' is not a clip of MSP-Podcast")
    speaker = row["SpkrID"].strip()
    return _utterance(
        clip,
        EMOTIONS.get(letter),
        _text(transcripts / f"{clip.stem}.txt"),
        None if speaker.lower() in ("", "unknown") else speaker,
        SPLITS[part],
        _attributes(row),
    )


def _attributes(row: Mapping[str, str]) -> dict[str, float]:
    attributes: dict[str, float] = {}
    for column, name in ATTRIBUTES.items():
        if text := (row.get(column) or "").strip():
            try:
                attributes[name] = float(text)
            except ValueError:
                raise ValueError(f"its {column} is '{text}', not a number") from None
            if not math.isfinite(attributes[name]):
                raise ValueError(f"its {column} is '{text}', not a number")
    return attributes


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace").strip() or None
    except OSError:
        return None


def _notes(utterances: list[Utterance]) -> Iterator[str]:
    speakers: defaultdict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        if utterance.speaker is not None:
            speakers[str(utterance.split)].add(utterance.speaker)
    for first, second in combinations(SPLITS.values(), 2):
        if shared := speakers[first] & speakers[second]:
            yield (
                f"{len(shared)} speakers are in both {first} and {second}, such as "
                f"'{min(shared)}': the partitions of this release are not apart by speaker"
            )


def _utterance(
    clip: Path,
    label: str | None,
    text: str | None,
    speaker: str | None,
    split: str,
    attributes: Mapping[str, float] | None = None,
) -> Utterance:
    return Utterance(
        id=clip.stem,
        audio=clip,
        text=text,
        label=label,
        speaker=speaker,
        session=None,
        dialogue=None,
        turn=None,
        split=split,
        attributes=attributes or {},
    )
