"""MELD (Poria et al., ACL 2019), in the layout of the release and with its faults.

    ROOT/train/train_splits/dia0_utt0.mp4                  (or ROOT/train_splits/…)
    ROOT/dev/dev_splits_complete/dia0_utt0.mp4
    ROOT/test/output_repeated_splits_test/dia0_utt0.mp4
    train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv anywhere below ROOT

Without any of these folders, as in the repository of the CSVs, the utterances have texts alone.

The column ``sentiment`` of the corpus is that of the CSVs: negative, neutral or positive. It is not
a merge of the emotions, because a surprise may be any of the three.

Dialogue and utterance numbers repeat across the splits, so an id carries its split:
``train/dia0_utt0``. The CSVs' start and end times are not used: they often differ from the clip.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import PipelineError
from .directory_walk import folders_below
from .tables import read_table
from .utterance import Corpus, PublishedCounts, Utterance

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

SENTIMENTS = ("negative", "neutral", "positive")

# Split, its name in the release, and the folder of its clips.
_SPLITS = (
    ("train", "train", "train_splits"),
    ("validation", "dev", "dev_splits_complete"),
    ("test", "test", "output_repeated_splits_test"),
)
_PUBLISHED = PublishedCounts(
    "Poria et al., ACL 2019", "split", {"train": 9989, "validation": 1109, "test": 2610}
)
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
# Older CSVs hold Windows-1252 bytes read as Latin-1: U+0092 for ’, U+0085 for ….
_C1 = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}


def load(root: Path) -> Corpus:
    """Read MELD from the folder ``root``.

    Raises:
        PipelineError: a CSV or a folder of clips is missing, or a CSV is not MELD's.
    """
    utterances: list[Utterance] = []
    ignored: list[tuple[Path, str]] = []
    sentiments: dict[str, str] = {}
    paths = _find(root)
    for split, name, folder in _SPLITS:
        clips = paths.get(folder)
        rows = list(_utterances(paths[f"{name}_sent_emo.csv"], split, name, clips))
        in_split = [utterance for utterance, _ in rows]
        sentiments |= {utterance.id: sentiment for utterance, sentiment in rows if sentiment}
        utterances += in_split
        if clips is not None:
            ignored += _strays(clips, {utterance.audio for utterance in in_split})
    return Corpus(
        "meld",
        utterances,
        CLASSES,
        "official",
        ignored,
        published=(_PUBLISHED,),
        columns={"sentiment": sentiments} if sentiments else {},
    )


def _find(root: Path) -> dict[str, Path]:
    """Return the folders of clips and the CSVs by name; one walk, as there are 14,000 files."""
    folders_of_clips = {folder for *_, folder in _SPLITS}
    tables = {f"{name}_sent_emo.csv" for _, name, _ in _SPLITS}
    wanted = folders_of_clips | tables
    paths: dict[str, Path] = {}
    for folder, folders, files in folders_below(root):
        for name in wanted.intersection([*folders, *files]):
            path = folder / name
            # If there are copies in deeper folders, the release's own file is the shallowest.
            if name not in paths or len(path.parts) < len(paths[name].parts):
                paths[name] = path
    needed = wanted if folders_of_clips & set(paths) else tables
    for name in sorted(needed - set(paths)):
        raise PipelineError(
            f"{root} is not MELD: it contains no '{name}'; give the folder into which MELD's "
            "archive was unpacked, with its three CSVs"
        )
    return paths


def _utterances(
    path: Path, split: str, name: str, clips: Path | None
) -> Iterator[tuple[Utterance, str | None]]:
    """Yield each utterance and its sentiment."""
    for place, row in read_table(path, (*_COLUMNS, "Sentiment"), required=_COLUMNS):
        try:
            yield _utterance(row, split, name, clips), _sentiment(row)
        except ValueError as error:
            raise PipelineError(
                f"{path}, {place}: {error}; take the file from MELD's release again"
            ) from error


def _utterance(row: Mapping[str, str], split: str, name: str, clips: Path | None) -> Utterance:
    dialogue, turn = int(row["Dialogue_ID"]), int(row["Utterance_ID"])
    label = row["Emotion"].strip().lower()
    if label not in CLASSES:
        raise ValueError(f"'{label}' is not an emotion of MELD")
    clip = clips / f"dia{dialogue}_utt{turn}.mp4" if clips is not None else None
    return Utterance(
        id=f"{name}/dia{dialogue}_utt{turn}",
        audio=clip,
        text=row["Utterance"].translate(_C1).strip(),
        label=label,
        speaker=row["Speaker"].translate(_C1).strip(),
        session=None,
        dialogue=f"{name}/dia{dialogue}",
        turn=turn,
        split=split,
        video=clip,
    )


def _sentiment(row: Mapping[str, str]) -> str | None:
    sentiment = row.get("Sentiment", "").strip().lower()
    return sentiment if sentiment in SENTIMENTS else None


def _strays(clips: Path, known: set[Path | None]) -> Iterator[tuple[Path, str]]:
    for path in sorted(clips.iterdir()):
        if path in known or path.suffix != ".mp4":
            continue
        if path.name.startswith("._"):
            yield path, "a macOS companion file, not a clip"
        elif re.match(r"final_videos_test", path.name):
            yield path, "a second cut of a test clip, not in the annotation"
        else:
            yield path, "not in the annotation"
