"""ESD, the emotional speech dataset (Zhou et al., ICASSP 2021 and Speech Communication 137, 2022).

    ROOT/0011/0011.txt                             the texts of a speaker: id, text, emotion
    ROOT/0011/Angry/train/0011_000351.wav          and …/evaluation/…, …/test/…
    ROOT/0011/Angry/0011_000351.wav                newer copies, without the folders of the parts

Speakers 0001 to 0010 speak Mandarin, 0011 to 0020 English. All speakers of a language say the same
350 sentences in each of five emotions, so every speaker is in each official part. Where the copy
has no folders of parts, the protocol is ``speaker-folds``.

The text files have several encodings: UTF-8, UTF-16, GB 2312 and Windows-1252, and the emotions of
the Mandarin speakers are in Chinese. The label is therefore taken from the folder.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import PipelineError
from .utterance import Corpus, PublishedCounts, Utterance

CLASSES = ("Neutral", "Happy", "Angry", "Sad", "Surprise")
PARTS = {"train": "train", "evaluation": "validation", "test": "test"}
_PUBLISHED = (
    PublishedCounts(
        "Zhou et al. 2022, 20 speakers, 350 sentences in 5 emotions",
        "label",
        dict.fromkeys(CLASSES, 7000),
    ),
)
_SPEAKER = re.compile(r"00(?:0[1-9]|1[0-9]|20)")
_CLIP = re.compile(r"(00(?:0[1-9]|1[0-9]|20))_[0-9]{6}")
_LINE = re.compile(r"(?P<id>[0-9]{4}_[0-9]{6})\s+(?P<text>[^\t]*)(?:\t.*)?")  # then the emotion
_FIRST_ENGLISH = "0011"


def load(root: Path) -> Corpus:
    """Read ESD from the folder ``root`` or from the one folder in it; speakers may be missing.

    The id of an utterance is the name of its clip. The column ``language`` is Mandarin or English.

    Raises:
        PipelineError: there is no folder of a speaker, or a speaker has no file of texts.
    """
    speakers = _speakers(root)
    utterances: list[Utterance] = []
    ignored: list[tuple[Path, str]] = []
    for folder in speakers:
        texts = _texts(folder)
        for path, emotion, part in _clips(folder):
            match = _CLIP.fullmatch(path.stem)
            if match is None or match[1] != folder.name:
                ignored.append((path, f"not a clip of speaker {folder.name}"))
            elif part not in (None, *PARTS):
                ignored.append((path, "in a folder that is not train, evaluation or test"))
            else:
                utterances.append(
                    _utterance(path, folder.name, emotion, texts.get(path.stem), part)
                )
    unique = {utterance.id: utterance for utterance in utterances}
    official = all(utterance.split for utterance in unique.values())
    ignored += [
        (utterance.audio, f"the same clip as {unique[utterance.id].audio}")
        for utterance in utterances
        if utterance.audio and utterance is not unique[utterance.id]
    ]
    return Corpus(
        "esd",
        list(unique.values()),
        CLASSES,
        "official" if official else "speaker-folds",
        ignored,
        published=_PUBLISHED,
        columns={"language": {id: _language(str(u.speaker)) for id, u in unique.items()}},
    )


def _speakers(root: Path) -> list[Path]:
    for pattern in ("00??", "*/00??"):
        speakers = sorted(
            path for path in root.glob(pattern) if path.is_dir() and _SPEAKER.fullmatch(path.name)
        )
        if len({path.parent for path in speakers}) > 1:
            names = ", ".join(sorted({path.parent.name for path in speakers}))
            raise PipelineError(
                f"{root} contains ESD more than once ({names}): give one of these folders"
            )
        if speakers:
            return speakers
    raise PipelineError(
        f"{root} is not ESD: it contains no folder of a speaker such as 0011; give the folder that "
        "contains 0001 to 0020"
    )


def _clips(folder: Path) -> Iterator[tuple[Path, str, str | None]]:
    """Yield each clip of a speaker, its emotion, and the name of its part, if it has one."""
    for emotion in CLASSES:
        for path in sorted((folder / emotion).glob("*.wav")):
            yield path, emotion, None
        for path in sorted((folder / emotion).glob("*/*.wav")):
            yield path, emotion, path.parent.name


def _texts(folder: Path) -> Mapping[str, str]:
    path = folder / f"{folder.name}.txt"
    if not path.is_file():
        raise PipelineError(
            f"{path} is missing, which has the texts of speaker {folder.name}: take the file from "
            "the release again"
        )
    lines = map(_LINE.fullmatch, _decoded(path, folder.name).splitlines())
    return {line["id"]: line["text"].strip() for line in lines if line and line["text"].strip()}


def _decoded(path: Path, speaker: str) -> str:
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    for encoding in ("utf-8-sig", "gb18030" if speaker < _FIRST_ENGLISH else "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("utf-8", errors="replace")


def _language(speaker: str) -> str:
    return "Mandarin" if speaker < _FIRST_ENGLISH else "English"


def _utterance(
    clip: Path, speaker: str, emotion: str, text: str | None, part: str | None
) -> Utterance:
    return Utterance(
        id=clip.stem,
        audio=clip,
        text=text,
        label=emotion,
        speaker=speaker,
        session=None,
        dialogue=None,
        turn=None,
        split=None if part is None else PARTS[part],
    )
