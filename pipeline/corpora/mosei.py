"""CMU-MOSEI (Bagher Zadeh et al., ACL 2018): the release's own segments and labels.

    ROOT/…/CMU_MOSEI_Labels.csd                                intervals and features of each video
    ROOT/…/Transcript/Segmented/Combined/VIDEO.txt             VIDEO___CLIP___START___END___text
    ROOT/…/Videos/Segmented/Combined/VIDEO_CLIP.mp4            the clips
    ROOT/…/cmu_mosei_std_folds.py                              the standard folds, of the SDK

An utterance is a line of a transcript: the clip of that number. The labels list the intervals of a
video in another order (clip 10 before clip 2), so a label belongs to a line if its times are equal,
not if its position is. The file of folds is read as text and never run; it is in
github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, in mmsdk/mmdatasdk/dataset/standard_datasets.

The annotators gave each of six emotions a strength of 0 to 3. The label is the strongest emotion;
``neutral`` if all are 0; none if two are equally strong (an interpretation: the paper scores each
emotion apart). The strengths are the votes of an utterance, for heads that predict several
labels, and ``sentiment`` (-3 to 3) is an attribute. To take the largest of six zeros, as some
tools do, makes neutral clips happy.
"""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import PipelineError
from .directory_walk import folders_below
from .utterance import Corpus, Utterance

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
CLASSES = (*EMOTIONS, "neutral")
_LABELS, _FOLDS = "CMU_MOSEI_Labels.csd", "cmu_mosei_std_folds.py"
_TRANSCRIPTS, _CLIPS = "Transcript/Segmented/Combined", "Videos/Segmented/Combined"
_SPLITS = {
    "standard_train_fold": "train",
    "standard_valid_fold": "validation",
    "standard_test_fold": "test",
}
_LINE = re.compile(
    r"(?P<video>.+?)___(?P<clip>[0-9]+)___(?P<start>-?[0-9.e-]+)___(?P<end>-?[0-9.e-]+)___(?P<text>.*)"
)
_SAME = 1e-3  # seconds

Strengths = Mapping[str, float]
"""``sentiment`` (-3 to 3), and the emotions (0 to 3), by name."""


def load(root: Path) -> Corpus:
    """Read CMU-MOSEI from the folder ``root``. The protocol is ``official``.

    A dialogue is a video. Segments without a label, and videos that are in no standard fold, stay
    without a label; notes count them.

    Raises:
        PipelineError: a file or a folder of the release is missing, or is not that of CMU-MOSEI.
    """
    paths = _find(root)
    split_of = _folds(paths[_FOLDS])
    utterances: list[Utterance] = []
    outside = 0
    with _opened(paths[_LABELS]) as labels:
        for transcript in sorted(paths[_TRANSCRIPTS].glob("*.txt")):
            strengths = _strengths(labels, transcript.stem, paths[_LABELS])
            for line in _lines(transcript):
                of_line = _of_interval(strengths, float(line["start"]), float(line["end"]))
                split = split_of.get(transcript.stem)
                outside += split is None
                clip = paths[_CLIPS] / f"{transcript.stem}_{line['clip']}.mp4"
                labels_of_clip = None if split is None else of_line
                utterances.append(_utterance(line, transcript.stem, clip, labels_of_clip, split))
    if not utterances:
        raise PipelineError(
            f"{paths[_TRANSCRIPTS]} contains no transcript of CMU-MOSEI: unpack it again"
        )
    known = {utterance.audio for utterance in utterances}
    return Corpus(
        "mosei",
        utterances,
        CLASSES,
        "official",
        [(p, "in no transcript") for p in sorted(paths[_CLIPS].glob("*.mp4")) if p not in known],
        tuple(_notes(utterances, outside)),
    )


def _find(root: Path) -> dict[str, Path]:
    """Return the release's files and folders by name; of copies, the shallowest."""
    wanted = (_LABELS, _FOLDS, _TRANSCRIPTS, _CLIPS)
    paths: dict[str, Path] = {}
    for folder, folders, files in folders_below(root):
        for name in wanted:
            path = folder / name
            here = name.partition("/")[0] in (*folders, *files) and path.exists()
            if here and (name not in paths or len(path.parts) < len(paths[name].parts)):
                paths[name] = path
    for name in wanted:
        if name not in paths:
            source = (
                "copy it from the SDK, mmsdk/mmdatasdk/dataset/standard_datasets/CMU_MOSEI"
                if name == _FOLDS
                else "give the folder into which the release was unpacked"
            )
            raise PipelineError(f"{root} is not complete: it contains no '{name}'; {source}")
    return paths


def _folds(path: Path) -> dict[str, str]:
    """Return the split of each video; the file is parsed, and never run."""
    split_of: dict[str, str] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if (split := _SPLITS.get(node.targets[0].id)) is None:
                    continue
                for video in ast.literal_eval(node.value):
                    if split_of.setdefault(video, split) != split:
                        raise PipelineError(
                            f"{path}: video '{video}' is in two folds: take the file from the SDK "
                            "again"
                        )
    except (SyntaxError, ValueError, TypeError) as error:
        raise PipelineError(
            f"{path} does not list the standard folds: take the file from the SDK again"
        ) from error
    if set(split_of.values()) != set(_SPLITS.values()):
        raise PipelineError(
            f"{path} lacks one of {', '.join(_SPLITS)}: take the file from the SDK again"
        )
    return split_of


def _opened(path: Path) -> Any:
    import h5py  # noqa: PLC0415 -- no other corpus needs it

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise PipelineError(f"{path} cannot be read as HDF5: download it again") from error


def _strengths(labels: Any, video: str, path: Path) -> list[tuple[float, float, Strengths]]:
    """Return the labelled intervals of a video: start and end in seconds, and the strengths."""
    try:
        (root,) = (group for group in labels.values() if "data" in group)
        if video not in root["data"]:
            return []
        names = json.loads(root["metadata"]["dimension names"][0])
        intervals = root["data"][video]["intervals"][()]
        features = root["data"][video]["features"][()]
        if not set(EMOTIONS) < set(names):
            raise KeyError(names)
    except (KeyError, ValueError, TypeError) as error:
        raise PipelineError(
            f"{path} does not have the labels of CMU-MOSEI: download the file again"
        ) from error
    rows: list[tuple[float, float, Strengths]] = []
    for (start, end), values in zip(intervals.tolist(), features.tolist(), strict=True):
        if not all(map(math.isfinite, values)):
            raise PipelineError(
                f"{path}: a label of video '{video}' at {start:g} s is not a number: download the "
                "file again"
            )
        rows.append((start, end, dict(zip(names, values, strict=True))))
    return rows


def _of_interval(
    rows: list[tuple[float, float, Strengths]], start: float, end: float
) -> Strengths | None:
    near = (s for a, b, s in rows if abs(a - start) < _SAME and abs(b - end) < _SAME)
    return next(near, None)


def _label(strengths: Strengths | None) -> str | None:
    if strengths is None:
        return None
    most = max(strengths[name] for name in EMOTIONS)
    strongest = [name for name in EMOTIONS if strengths[name] == most]
    if most <= 0:
        return "neutral"
    return strongest[0] if len(strongest) == 1 else None


def _lines(path: Path) -> Iterator[re.Match[str]]:
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise PipelineError(
                f"{path}, line {number} is not VIDEO___CLIP___START___END___text: take the file "
                "from the release again"
            )
        yield match


def _notes(utterances: list[Utterance], outside: int) -> Iterator[str]:
    inside = [utterance for utterance in utterances if utterance.split is not None]
    if outside:
        yield f"{outside} segments are of videos that are in no standard fold, and have no label"
    if unlabelled := sum(utterance.label is None for utterance in inside):
        yield (
            f"{unlabelled} segments of the folds have no label: their times are not in the labels, "
            "or two emotions are equally strong"
        )


def _utterance(
    line: re.Match[str], video: str, clip: Path, strengths: Strengths | None, split: str | None
) -> Utterance:
    return Utterance(
        id=clip.stem,
        audio=clip,
        text=line["text"].strip() or None,
        label=_label(strengths),
        speaker=None,
        session=None,
        dialogue=video,
        turn=int(line["clip"]),
        split=split,
        attributes={name: v for name, v in (strengths or {}).items() if name == "sentiment"},
        votes={name: v for name, v in (strengths or {}).items() if name in EMOTIONS},
    )
