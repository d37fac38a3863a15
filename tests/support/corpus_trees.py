"""Small trees in the layouts of RAVDESS, EmoDB, ESD, MSP-Podcast, CMU-MOSEI and EmoBox."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def touch(*paths: Path) -> None:
    """Make files that stand for clips: no loader opens a clip."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clip")


def write_ravdess(root: Path) -> Path:
    """Two actors with every emotion in both statements, and a song."""
    names = [
        f"03-01-{emotion:02}-01-{statement:02}-01-{actor:02}.wav"
        for actor in (1, 24)
        for emotion in range(1, 9)
        for statement in (1, 2)
    ]
    touch(*(root / f"Actor_{name[18:20]}" / name for name in names))
    touch(root / "Actor_01" / "03-02-05-01-01-01-01.wav")
    return root


def write_emodb(root: Path) -> Path:
    """One clip for each letter of an emotion, of two speakers."""
    for speaker in ("03", "16"):
        touch(*(root / "wav" / f"{speaker}a02{emotion}a.wav" for emotion in "WLEAFTN"))
    return root


ESD_ENCODINGS = {"0001": "gb2312", "0002": "utf-16", "0011": "utf-8", "0012": "cp1252"}
ESD_TEXTS = {
    "0001": "打远一看",
    "0002": "他们都说",
    "0011": "The nine the eggs",
    "0012": "It’s now",
}


def write_esd(root: Path, *, parts: bool = True) -> Path:
    """Four speakers with a clip of each emotion in each part, and texts in four encodings."""
    folders = ("train", "evaluation", "test") if parts else ("",)
    for speaker, encoding in ESD_ENCODINGS.items():
        lines = []
        for index, emotion in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise")):
            for number, part in enumerate(folders, 1):
                id = f"{speaker}_{350 * index + number:06}"
                touch(root / speaker / emotion / part / f"{id}.wav")
                lines.append(
                    f"{id}\t{ESD_TEXTS[speaker]}\t{'中立' if speaker < '0011' else emotion}"
                )
        (root / speaker / f"{speaker}.txt").write_bytes("\r\n".join(lines).encode(encoding))
    return root


MSP_ROWS = (
    *("0001_0008.wav,N,2.2,4.0,2.6,30,Male,Train", "0001_0009.wav,A,6,2,5,30,Male,Train"),
    *("0002_0001.wav,X,4,4,4,Unknown,Male,Train", "0002_0002.wav,H,5,6,4,31,Female,Development"),
    *("0003_0001.wav,O,4,4,4,32,Male,Test1", "0003_0002_0001.wav,S,2,2,2,33,Male,Test1"),
    *("0004_0001.wav,C,3,2,4,34,Female,Test2", "0004_0002.wav,U,5,5,5,Unknown,Female,Test2"),
)


def write_msp_podcast(root: Path, rows: Sequence[str] = MSP_ROWS) -> Path:
    """Eight labelled clips and one of Test3, one transcript."""
    (root / "Labels").mkdir(parents=True)
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    lines = [header, *(f"MSP-PODCAST_{row}" for row in rows), ""]
    (root / "Labels" / "labels_consensus.csv").write_text("\n".join(lines))
    touch(*(root / "Audios" / f"MSP-PODCAST_{row.split(',')[0]}" for row in rows))
    touch(root / "Audios" / "MSP-PODCAST_test3_0001.wav")
    (root / "Transcripts").mkdir()
    (root / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_text("So that is it.\n")
    return root


MOSEI_NAMES = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
# Video → (clip, start, end, text, strengths in the order of MOSEI_NAMES)
MOSEI_VIDEOS: Mapping[str, Sequence[tuple[int, float, float, str, Sequence[float]]]] = {
    "-3g5yACwYnA": (
        (2, 4.84, 14.052, "And then___it ended", (-1, 0, 2 / 3, 0, 0, 1 / 3, 0)),
        (10, 82.753, 100.555, "Key is part of it.", (1, 2 / 3, 0, 0, 0, 0, 0)),
        (11, 119.919, 125.299, "So we do", (0, 0, 0, 0, 0, 0, 0)),
    ),
    "hh04W3xXa5s": ((0, 0.0, 3.2, "Both", (0, 1, 0, 1, 0, 0, 0)),),
    "220548": ((0, -0.4, 3.0, "It is a review", (0, 0, 0, 1, 0, 0, 0)),),
    "notinfold": ((0, 0.0, 1.0, "Outside", (0, 0, 0, 0, 0, 0, 1)),),
}


def write_mosei(root: Path, videos: Mapping[str, Any] = MOSEI_VIDEOS) -> Path:
    """Four videos; the labels have the order of the clips' names, as in the release."""
    transcripts = root / "Raw" / "Transcript" / "Segmented" / "Combined"
    clips = root / "Raw" / "Videos" / "Segmented" / "Combined"
    transcripts.mkdir(parents=True)
    with h5py.File(root / "CMU_MOSEI_Labels.csd", "w") as file:
        group = file.create_group("All Labels")
        names = json.dumps(MOSEI_NAMES)
        group.create_dataset("metadata/dimension names", data=[names], dtype=h5py.string_dtype())
        for video, rows in videos.items():
            lines = [f"{video}___{n}___{start}___{end}___{text}" for n, start, end, text, _ in rows]
            (transcripts / f"{video}.txt").write_text("\n".join([*lines, ""]))
            touch(*(clips / f"{video}_{row[0]}.mp4" for row in rows))
            by_name = sorted(rows, key=lambda row: str(row[0]))
            data = group.create_group(f"data/{video}")
            data["intervals"] = np.array([row[1:3] for row in by_name], np.float64)
            data["features"] = np.array([row[4] for row in by_name], np.float32)
    (root / "cmu_mosei_std_folds.py").write_text(
        "import os\nstandard_train_fold = ['-3g5yACwYnA']\nstandard_valid_fold = ['hh04W3xXa5s']\n"
        "standard_test_fold = ['220548']\nraise SystemExit('this file must not run')\n"
    )
    return root


def write_emobox(root: Path, name: str, folds: int, emotions: Mapping[str, str]) -> Path:
    """EmoBox's metadata of a corpus of 6 · ``folds`` clips; return the folder of the corpus."""
    folder = root / "data" / name
    labels = list(emotions)
    rows = [
        {
            "key": f"{name}-{n}",
            "dataset": name,
            "wav": f"downloads/{name}/{n}.wav",
            "emo": labels[n % len(labels)],
            "channel": 1,
        }
        for n in range(6 * folds if folds > 1 else 12)
    ]
    folder.mkdir(parents=True)
    write_lines(folder / f"{name}.jsonl", rows)
    (folder / "label_map.json").write_text(json.dumps(emotions))
    for fold in range(1, folds + 1):
        tested = rows[6 * fold - 6 : 6 * fold]
        (folder / f"fold_{fold}").mkdir()
        for part, chosen in (
            ("test", tested),
            ("train", [row for row in rows if row not in tested]),
        ):
            write_lines(folder / f"fold_{fold}" / f"{name}_{part}_fold_{fold}.jsonl", chosen)
    touch(*(root / str(row["wav"]) for row in rows))
    return folder


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
