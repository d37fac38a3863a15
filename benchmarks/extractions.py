"""mser's own extraction, from clips to committed shards: at workers that wait, and as typed."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mser.benchmarks.frame_errors import States, frame_errors
from mser.benchmarks.passes import Job
from mser.cache import FeatureCache
from mser.pipeline.compute import local_cluster, visible_gpus
from mser.pipeline.compute.device import cores
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.crew import default_workers, threads_of

NAME = "measured"


class Extraction:
    """Dask workers as ``mser extract`` starts them, which stay and have loaded the encoders."""

    def __init__(self, job: Job) -> None:
        self.job, self.open = job, ExitStack()
        device = torch.device(job.device)
        gpus = visible_gpus() if device.type == "cuda" else []
        workers = default_workers(device)
        threads = threads_of(device, max(1, cores() // workers))
        cluster = self.open.enter_context(local_cluster(workers, threads, gpus))
        self.address = cluster.client.scheduler_info()["address"]

    def close(self) -> None:
        self.open.close()

    def seconds(self, modalities: Sequence[str], dtype: str) -> float:
        with tempfile.TemporaryDirectory(dir=self.job.work) as cache:
            return self._extract(Path(cache), modalities, dtype)

    def errors(self, modalities: Sequence[str], dtype: str) -> dict[str, States]:
        """The error of every frame of every layer of every utterance, by modality."""
        with tempfile.TemporaryDirectory(dir=self.job.work) as cache:
            self._extract(Path(cache), modalities, dtype)
            return stored_errors(self.job, Path(cache), modalities)

    def _extract(self, cache: Path, modalities: Sequence[str], dtype: str) -> float:
        encoders = {modality: str(self.job.encoders[modality]) for modality in modalities}
        settings = ExtractSettings(
            "manifest",
            None,
            cache,
            encoders,
            manifest=self.job.manifest,
            name=NAME,
            device=self.job.device,
            dtype=dtype,
            scheduler=self.address,
        )
        started = time.perf_counter()
        summary = extract(settings)
        spent = time.perf_counter() - started
        assert all(one.new for one in summary.modalities)
        return spent


def stored_errors(job: Job, cache: Path, modalities: Sequence[str]) -> dict[str, States]:
    """The errors of what lies in a cache, which must have every utterance and no frame more."""
    found = {}
    for modality in modalities:
        entry = FeatureCache(cache).open(NAME, modality=modality)
        paths = job.right(modality, "").parent.glob("*.npy")
        right = {path.stem: np.load(path) for path in paths}
        assert set(entry.ids) == set(right)
        pairs = [(entry[id], states) for id, states in right.items()]
        assert all(states.shape == its.shape for states, its in pairs)
        found[modality] = np.concatenate([frame_errors(*pair) for pair in pairs])
    return found


def as_typed(job: Job, cache: Path, modalities: Sequence[str]) -> float:
    """Seconds of the plain command, with the start of Python and of the workers, and all imports.

    The cache is made anew.
    """
    shutil.rmtree(cache, ignore_errors=True)
    names = {f"--{one}-encoder": str(job.encoders[one]) for one in modalities}
    options: dict[str, Any] = {
        "--dataset": "manifest",
        "--manifest": job.manifest,
        "--name": NAME,
        "--cache": cache,
        "--modalities": ",".join(modalities),
        "--device": job.device,
        **names,
    }
    command = [sys.executable, "-c", "from mser.cli import main; main()", "extract"]
    words = [str(word) for option in options.items() for word in option]
    started = time.perf_counter()
    subprocess.run([*command, *words], check=True, capture_output=True)
    return time.perf_counter() - started
