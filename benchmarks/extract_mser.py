"""mser's own extraction, from clips to committed shards: with running workers, or as a command."""

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

from mser.benchmarks.forward_passes import Job
from mser.benchmarks.frame_errors import States, frame_errors
from mser.cache import FeatureCache
from mser.pipeline.compute import visible_gpus
from mser.pipeline.compute.device import cores
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.engine import default_workers, threads_of

NAME = "measured"


class WarmExtraction:
    """Dask workers as ``mser extract`` starts them; they stay, with the encoders loaded."""

    def __init__(self, job: Job) -> None:
        self.job, self.resources = job, ExitStack()
        device = torch.device(job.device)
        gpus = visible_gpus() if device.type == "cuda" else []
        workers = default_workers(device)
        threads = threads_of(device, max(1, cores() // workers))
        cluster = self.resources.enter_context(local_cluster(workers, threads, gpus))
        self.address = cluster.client.scheduler_info()["address"]
        # The cluster accepts only who has its keys, which this process passes on in files.
        self.keys = {name: job.work / name for name in ("tls_ca_file", "tls_cert", "tls_key")}
        security = cluster.client.security
        texts = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
        for file, text in zip(self.keys.values(), texts, strict=True):
            file.write_text(str(text), "ascii")

    def close(self) -> None:
        """Stop the workers."""
        self.resources.close()

    def seconds(self, modalities: Sequence[str], dtype: str) -> float:
        """Extract into a new cache; return the time."""
        with tempfile.TemporaryDirectory(dir=self.job.work) as cache:
            return self.extract(Path(cache), modalities, dtype)

    def errors(self, modalities: Sequence[str], dtype: str) -> dict[str, States]:
        """Return, by modality, the error of every frame of every layer of every utterance."""
        with tempfile.TemporaryDirectory(dir=self.job.work) as cache:
            self.extract(Path(cache), modalities, dtype)
            return stored_errors(self.job, Path(cache), modalities)

    def extract(self, cache: Path, modalities: Sequence[str], dtype: str) -> float:
        """Extract into the empty folder ``cache``; return the time."""
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
            precision=self.job.precision,
            scheduler=self.address,
            tls_ca_file=self.keys["tls_ca_file"],
            tls_cert=self.keys["tls_cert"],
            tls_key=self.keys["tls_key"],
        )
        started = time.perf_counter()
        summary = extract(settings)
        spent = time.perf_counter() - started
        assert all(modality.new for modality in summary.modalities)
        return spent


def stored_errors(job: Job, cache: Path, modalities: Sequence[str]) -> dict[str, States]:
    """Return the errors of the features in a cache, by modality.

    The cache must hold every utterance with exactly the frames of the reference.
    """
    errors = {}
    for modality in modalities:
        entry = FeatureCache(cache).open(NAME, modality=modality)
        paths = job.reference(modality, "").parent.glob("*.npy")
        references = {path.stem: np.load(path) for path in paths}
        assert set(entry.ids) == set(references)
        pairs = [(entry[id], reference) for id, reference in references.items()]
        assert all(states.shape == reference.shape for states, reference in pairs)
        errors[modality] = np.concatenate([frame_errors(*pair) for pair in pairs])
    return errors


def command_seconds(job: Job, cache: Path, modalities: Sequence[str]) -> float:
    """Run ``mser extract`` into an empty cache; return the seconds of the whole command.

    The time includes the start of Python and of the workers, and all imports.
    """
    shutil.rmtree(cache, ignore_errors=True)
    encoders = {f"--{modality}-encoder": str(job.encoders[modality]) for modality in modalities}
    options: dict[str, Any] = {
        "--dataset": "manifest",
        "--manifest": job.manifest,
        "--name": NAME,
        "--cache": cache,
        "--modalities": ",".join(modalities),
        "--device": job.device,
        **encoders,
    }
    command = [sys.executable, "-c", "from mser.cli import main; main()", "extract"]
    arguments = [str(argument) for option in options.items() for argument in option]
    started = time.perf_counter()
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started
