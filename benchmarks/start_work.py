"""The time from a command to its work: an extraction as typed, and a training's first epoch.

The corpus is synthetic and small, and the encoders are small and random, so that almost all of the
time is the start.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mser.benchmarks.extract_mser import NAME, WarmExtraction, command_seconds
from mser.benchmarks.forward_passes import Job
from mser.benchmarks.synthetic_clips import make_corpus
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder

MINUTES = 1.0
MODALITIES = ("speech", "text")
POLL = 0.005  # seconds between two looks at the log of a training


class Work:
    """A corpus, encoders, workers that run, and a cache to train on; below a folder."""

    def __init__(self, folder: Path, device: str) -> None:
        encoders = {
            "speech": save_speech_encoder(folder / "speech"),
            "text": save_text_encoder(folder / "text", synthetic.SENTENCE_WORDS),
        }
        self.folder = folder
        self.job = Job(make_corpus(folder / "corpus", MINUTES), encoders, device, folder)
        self.cache = _synthetic_cache(folder, self.job)
        self.warm = WarmExtraction(self.job)
        self.warm.seconds(MODALITIES, "float16")  # loads the encoders

    def close(self) -> None:
        """Stop the workers."""
        self.warm.close()

    def extraction(self) -> float:
        """Run ``mser extract`` into an empty cache; return its seconds."""
        return command_seconds(self.job, self.folder / NAME, MODALITIES)

    def warm_extraction(self) -> float:
        """Extract the same with workers that run; return the seconds."""
        return self.warm.seconds(MODALITIES, "float16")

    def to_first_epoch(self, head: str) -> float:
        """Start ``mser train-head``; return the seconds until its log has a line."""
        return self._first_epoch(head)[0]

    def first_epoch(self, head: str) -> float:
        """Start ``mser train-head``; return the seconds that its first epoch takes by its log."""
        return float(self._first_epoch(head)[1]["seconds"])

    def _first_epoch(self, head: str) -> tuple[float, dict[str, Any]]:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        options = ["--head", head, "--dataset", "synthetic", "--cache", self.cache, "--out", run]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*_MSER, "train-head", *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (lines := [line for path in run.glob("**/*.jsonl") for line in _lines(path)]):
            assert process.poll() is None, f"the training of {head} ended without a line"
            time.sleep(POLL)
        spent = time.perf_counter() - started
        process.kill()
        process.wait()
        return spent, json.loads(lines[0])


_MSER = [sys.executable, "-c", "from mser.cli import main; main()"]


def _lines(path: Path) -> list[str]:
    """Return the complete lines of a log that is being written."""
    return path.read_text("utf-8").split("\n")[:-1]


def _synthetic_cache(folder: Path, job: Job) -> Path:
    """Extract the corpus of the demo, 320 utterances, which has labels and sessions."""
    corpus, cache = folder / "labelled", folder / "cache"
    synthetic.load(corpus, utterances_per_session=320 // synthetic.SESSIONS)
    encoders = [f"--{name}-encoder={path}" for name, path in job.encoders.items()]
    options = ["--dataset", "synthetic", "--root", corpus, "--cache", cache, *encoders]
    subprocess.run([*_MSER, "extract", *map(str, options)], check=True, capture_output=True)
    return cache
