"""A **synthetic** corpus in the format and with the lengths of MELD's clips, to measure speed.

The sound is noise and the texts are random words: the content does not change any speed.
"""

import csv
from pathlib import Path

import av
import numpy as np

from mser.pipeline.corpora.synthetic import SENTENCE_WORDS

RATE = 48_000  # samples per second
FRAME_SAMPLES = 1024  # per AAC frame


def make_corpus(folder: Path, minutes: float, seed: int = 0) -> Path:
    """Make mp4 files (AAC, 48 kHz, stereo) of 0.5 to 15 s, 3 s on average; return the manifest."""
    rng = np.random.default_rng(seed)
    words = sorted(SENTENCE_WORDS)
    rows = [("id", "audio", "text")]
    total = 0.0
    folder.mkdir(parents=True)
    while total < 60 * minutes:
        seconds = float(np.clip(rng.lognormal(np.log(2.5), 0.6), 0.5, 15))
        id = f"utt{len(rows)}"
        write_clip(folder / f"{id}.mp4", 0.1 * rng.standard_normal((2, int(seconds * RATE))))
        rows.append((id, f"{id}.mp4", " ".join(rng.choice(words, 1 + int(2.5 * seconds)))))
        total += seconds
    manifest = folder / "corpus.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return manifest


def write_clip(path: Path, samples: np.ndarray) -> None:
    """Write samples, (2, samples), as AAC in an mp4 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        for start in range(0, samples.shape[1], FRAME_SAMPLES):
            part = np.ascontiguousarray(samples[:, start : start + FRAME_SAMPLES], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
