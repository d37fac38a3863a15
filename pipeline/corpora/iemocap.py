"""IEMOCAP (Busso et al., Language Resources and Evaluation 42, 2008), the full release.

    ROOT/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt      (ROOT is IEMOCAP_full_release, or
    ROOT/Session1/dialog/transcriptions/Ses01F_impro01.txt      the folder that it lies in)
    ROOT/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    ROOT/Session1/dialog/avi/DivX/Ses01F_impro01.avi           (without it there is no video)

An utterance is a line of the consensus labels. The labels of single annotators, in the folders
below EmoEvaluation, are not read. The last field of an id gives the speaker, because both speakers
talk in every dialogue: the speaker of ``Ses01F_impro01_M000`` is ``Ses01_M``. A video shows a whole
dialogue, both speakers side by side. An utterance is the part between the times of its label, and
the half of its speaker: the left half for the person who is named in the dialogue's name and wears
the markers (F in ``Ses01F_impro01``), the right half for the other one. The release does not state
this; it is the rule of public preparations of the corpus [interpretation]. Texts are those of
the release, with its marks such as ``[LAUGHTER]``. The label ``xxx`` means that the annotators did
not agree; it is not an emotion and not a class, but its utterances are part of the corpus, as are
those with ``oth``.

The release has 7380 utterances in six classes, 595 of them happy. Papers that count 7433 utterances
use labels of another preparation, with 648 happy ones.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import PipelineError
from .utterance import Corpus, PublishedCounts, Utterance

CLASSES = ("neu", "hap", "sad", "ang", "sur", "fea", "dis", "fru", "exc", "oth")
NO_AGREEMENT = "xxx"
CLASS_SETS = {
    "4": {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"},
    "6": {
        "ang": "angry",
        "hap": "happy",
        "exc": "excited",
        "sad": "sad",
        "neu": "neutral",
        "fru": "frustrated",
    },
}
_FOUR = "the 5531 utterances in common use, as in arXiv 2412.20821"
PUBLISHED = (
    PublishedCounts(
        "github.com/tae898/multimodal-datasets, the splits of IEMOCAP/dataset-stats.md",
        "label",
        {
            **{"neu": 1708, "hap": 595, "sad": 1084, "ang": 1103, "sur": 107, "fea": 40},
            **{"dis": 2, "fru": 1849, "exc": 1041, "oth": 3, NO_AGREEMENT: 2507},
        },
    ),
    PublishedCounts(
        _FOUR, "label", {"angry": 1103, "happy": 1636, "sad": 1084, "neutral": 1708}, "4"
    ),
    PublishedCounts(
        _FOUR,
        "session",
        {"Ses01": 1085, "Ses02": 1023, "Ses03": 1151, "Ses04": 1031, "Ses05": 1241},
        "4",
    ),
)

_SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")
# "[6.2901 - 8.2357]⇥Ses01F_impro01_F000⇥neu⇥[2.5000, 2.5000, 2.5000]"
_LABEL = re.compile(
    r"\[(?P<start>\d+(?:\.\d+)?)\s*-\s*(?P<end>\d+(?:\.\d+)?)\]\s+"
    r"(?P<id>(?P<dialogue>(?P<session>Ses0[1-5])[FM]_(?:impro|script)\w+)_(?P<gender>[FM])[^\W_]+)\s+"
    r"(?P<label>[a-z]+)\s+\[.*\]"
)
# "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me."
_TRANSCRIPT = re.compile(r"(?P<id>Ses0\S+)\s+\[[^\]]*\]\s*:(?P<text>.*)")


class _Transcripts(NamedTuple):
    """Texts by utterance id, and the number of lines that have no id."""

    texts: dict[str, str]
    without_id: int


def load(root: Path) -> Corpus:
    """Read IEMOCAP from the folder ``root`` or from a folder in it.

    Sessions may be missing; a note names them. Other notes count the scripted utterances, and the
    lines of the transcripts that are not utterances because they have no id or no label.

    Raises:
        PipelineError: there is no session, or more than one release, or a file of labels is not
            that of IEMOCAP.
    """
    release = _find(root)
    utterances: list[Utterance] = []
    ignored: list[tuple[Path, str]] = []
    missing: list[str] = []
    without_id = without_label = 0
    for name in _SESSIONS:
        folder = release / name
        in_session: list[Utterance] = []
        for path in sorted((folder / "dialog" / "EmoEvaluation").glob("Ses0*.txt")):
            transcripts = _transcripts(folder / "dialog" / "transcriptions" / path.name)
            video = folder / "dialog" / "avi" / "DivX" / f"{path.stem}.avi"
            dialogue = list(
                _dialogue(
                    path,
                    folder / "sentences" / "wav",
                    video if video.parent.is_dir() else None,
                    transcripts.texts,
                )
            )
            without_id += transcripts.without_id
            labelled = {utterance.id for utterance in dialogue}
            without_label += len(transcripts.texts.keys() - labelled)
            in_session += dialogue
        if not in_session:
            missing.append(name)
        utterances += in_session
        clips = {utterance.audio for utterance in in_session}
        ignored += _strays(folder / "sentences" / "wav", clips)
    if not utterances:
        raise _not_iemocap(root)
    return Corpus(
        "iemocap",
        utterances,
        CLASSES,
        "leave-one-session-out",
        ignored,
        tuple(_notes(utterances, missing, without_id, without_label)),
        CLASS_SETS,
        PUBLISHED,
        {"scenario": {u.id: _scenario(u) for u in utterances}},
    )


def _scenario(utterance: Utterance) -> str:
    """Return the script or the improvised scene of an utterance; each recurs in all sessions.

    ``Ses05M_script01_1b`` is a part of ``script01``.
    """
    match = re.search(r"(?:impro|script)\d+", utterance.id)
    return match[0] if match else utterance.id


def _find(root: Path) -> Path:
    """Return the folder that contains the sessions."""
    for above in ("", "*/"):
        labels = root.glob(f"{above}Session[1-5]/dialog/EmoEvaluation")
        releases = sorted({path.parents[2] for path in labels})
        if len(releases) > 1:
            names = ", ".join(path.name for path in releases)
            raise PipelineError(
                f"{root} contains IEMOCAP more than once ({names}): give one of these folders"
            )
        if releases:
            return releases[0]
    raise _not_iemocap(root)


def _not_iemocap(root: Path) -> PipelineError:
    return PipelineError(
        f"{root} is not IEMOCAP: it contains no labels such as "
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt; give the folder that contains "
        "Session1 to Session5 (IEMOCAP_full_release)"
    )


def _dialogue(
    path: Path, wavs: Path, video: Path | None, texts: dict[str, str]
) -> Iterator[Utterance]:
    """Yield the utterances of a dialogue in the order of their start times.

    The numbers in the ids do not give that order, because they begin at 0 for each speaker.
    """
    by_time = sorted(_labels(path), key=lambda line: (float(line["start"]), float(line["end"])))
    for turn, line in enumerate(by_time):
        yield Utterance(
            id=line["id"],
            audio=wavs / path.stem / f"{line['id']}.wav",
            text=texts.get(line["id"]) or None,
            label=line["label"],
            speaker=f"{line['session']}_{line['gender']}",
            session=line["session"],
            dialogue=path.stem,
            turn=turn,
            split=None,
            video=video,
            video_start=float(line["start"]),
            video_end=float(line["end"]),
            video_side="left" if line["gender"] == path.stem[len("Ses01")] else "right",
        )


def _labels(path: Path) -> Iterator[re.Match[str]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.startswith("["):  # the header, or the label of a single annotator
            continue
        match = _LABEL.fullmatch(line)
        if match is None:
            why = "it is not a label line of IEMOCAP"
        elif match["dialogue"] != path.stem:
            why = f"{match['id']} does not belong to this dialogue"
        elif match["label"] not in (*CLASSES, NO_AGREEMENT):
            why = f"'{match['label']}' is not an emotion of IEMOCAP"
        else:
            yield match
            continue
        raise PipelineError(f"{path}, line {number}: {why}: take the file from the release again")


def _transcripts(path: Path) -> _Transcripts:
    texts: dict[str, str] = {}
    without_id = 0
    for line in _lines(path) if path.exists() else ():
        match = _TRANSCRIPT.fullmatch(line)
        if match:
            texts[match["id"]] = match["text"].strip()
        elif line:
            without_id += 1
    return _Transcripts(texts, without_id)


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # Latin-1, with quotes and dashes
    return [line.strip() for line in text.split("\n")]


def _strays(wavs: Path, known: set[Path | None]) -> Iterator[tuple[Path, str]]:
    for path in sorted(wavs.glob("*/*.wav")):
        if path.name.startswith("._"):
            yield path, "a macOS companion file, not a clip"
        elif path not in known:
            yield path, "not in the annotation"


def _notes(
    utterances: list[Utterance], missing: list[str], without_id: int, without_label: int
) -> Iterator[str]:
    if missing:
        yield f"IEMOCAP is not complete: there are no labels of {', '.join(missing)}"
    scripted = sum("_script" in utterance.id for utterance in utterances)
    yield (
        f"of all {len(utterances)} utterances {len(utterances) - scripted} are improvised and "
        f"{scripted} scripted, by their ids; scripts recur across sessions, so report improvised "
        "and scripted utterances separately as well"
    )
    if without_id or without_label:
        yield (
            f"the transcripts contain {without_id} lines without an id and {without_label} ids "
            "without a label, which are not utterances"
        )
