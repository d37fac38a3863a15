"""A small tree in MELD's layout, with playable clips and the faults of the release."""

import csv
from pathlib import Path
from typing import Any

import av
import numpy as np

FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
# Split, dialogue, utterance, text, speaker, and the kind of the clip.
ROWS = (
    ("train", 0, 0, "I was so glad\u0085", "Joey", "aac 1"),
    ("train", 0, 1, "You\u0092ve had the time.", "The Interviewer", "aac 2"),
    ("train", 0, 4, "What is that?", "Joey/Drake", "aac 6"),
    ("train", 1, 0, "No!", "All", "wav"),
    ("train", 125, 3, "This clip is corrupt.", "Ross", "corrupt"),
    ("dev", 0, 0, "Oh my God, he’s lost it.", "Phoebe", "aac 2"),
    ("dev", 1, 0, "This one has no sound.", "Monica", "no-audio"),
    ("dev", 110, 7, "This one is not there.", "Monica", "absent"),
    ("test", 0, 0, "Why do all coffee mugs have numbers?", "Mark", "aac 2"),
    ("test", 0, 1, "", "Rachel", "aac 1"),
    ("test", 2, 0, "Ugh.", "Rachel", "silent"),
    ("test", 3, 0, "Hm.", "Rachel", "wav"),
)
BAD_CLIPS = {
    "train/dia125_utt3": "unreadable",
    "dev/dia1_utt0": "no-audio",
    "dev/dia110_utt7": "absent",
    "test/dia2_utt0": "silent",
}
IDS = {f"{split}/dia{dialogue}_utt{turn}" for split, dialogue, turn, *_ in ROWS}
SPEECH_IDS = IDS - set(BAD_CLIPS)
TEXT_IDS = IDS - {"test/dia0_utt1"}


def save_clip(path: Path, kind: str, seed: int) -> None:
    if kind == "absent":
        path.unlink(missing_ok=True)
        return
    codec, _, count = kind.partition(" ")
    is_aac = codec in ("aac", "corrupt")
    channels = int(count) if codec == "aac" else 1
    rate = 48_000 if is_aac else 16_000
    seconds = 0.006 if kind == "6 ms" else 0.5 + 0.1 * (seed % 5)
    signal = np.random.default_rng(seed).uniform(-0.3, 0.3, (channels, int(rate * seconds)))
    if kind == "silent":
        signal[:] = 0
    with av.open(str(path), "w", format="mp4" if is_aac or kind == "no-audio" else "wav") as file:
        if kind == "no-audio":
            stream: Any = file.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            frame: Any = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        else:
            layout = LAYOUTS[channels]
            stream = file.add_stream("aac" if is_aac else "pcm_s16le", rate=rate, layout=layout)
            frame = av.AudioFrame.from_ndarray(signal.astype(np.float32), "fltp", layout)
            frame.sample_rate, frame.pts = rate, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    if kind == "corrupt":
        path.write_bytes(path.read_bytes()[:-3000])


def write_tables(root: Path, rows=ROWS) -> None:
    header = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
    for split in FOLDERS:
        with (root / f"{split}_sent_emo.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row_split, dialogue, turn, text, speaker, _ in rows:
                if row_split == split:
                    writer.writerow((text, speaker, "joy", dialogue, turn))


def clip(root: Path, id: str) -> Path:
    split, name = id.split("/")
    return root / FOLDERS[split] / f"{name}.mp4"


def write_meld(root: Path) -> None:
    """Write a tree in MELD's layout with the faults of the release."""
    for seed, (split, dialogue, turn, _, _, kind) in enumerate(ROWS):
        path = clip(root, f"{split}/dia{dialogue}_utt{turn}")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_clip(path, kind, seed)
    (root / FOLDERS["test"] / "final_videos_testdia1_utt0.mp4").write_bytes(b"x")
    (root / FOLDERS["train"] / "._dia0_utt0.mp4").write_bytes(b"x")
    write_tables(root)
