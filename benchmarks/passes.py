"""Ways to run the same encoders over the same utterances; each is timed in a process of its own.

All but ours get their waves decoded and their models loaded and warm, keep nothing and write
nothing, so they are faster here than in anybody's use.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer
from transformers.utils import logging

from mser.pipeline.clusters import local_cluster, visible_gpus
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.device import cores
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.audio import BadClipError, decode, read_clip
from mser.pipeline.extract.crew import default_workers, threads_of

RATE = 16_000


@dataclass(frozen=True)
class Job:
    """Which manifest's utterances are encoded, by which encoders, where."""

    manifest: Path
    speech: Path
    text: Path
    device: str


def in_processes(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each of the arguments, all at once, each in a fresh process."""
    with ProcessPoolExecutor(len(arguments), get_context("spawn")) as pool:
        return [one.result() for one in [pool.submit(function, *each) for each in arguments]]


def utterances(job: Job) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """The waves that can be decoded, and the texts."""
    waves, texts = [], []
    for one in read_manifest(job.manifest, "measured").utterances:
        if one.text:
            texts.append(one.text)
        try:
            assert one.audio
            waves.append(decode(read_clip(one.audio)))
        except BadClipError:
            continue
    return waves, texts


def one_at_a_time(job: Job, threads: int, part: int, parts: int) -> dict[str, float]:
    """Bare forward passes in transformers, of every ``parts``-th utterance, the longest first."""
    waves, texts = utterances(job)
    return _timed(
        job, threads, [[w] for w in waves[part::parts]], [[t] for t in texts[part::parts]]
    )


def padded(job: Job, threads: int, size: int) -> dict[str, float]:
    """Bare forward passes of batches in the corpus's order, padded, with their masks."""
    waves, texts = utterances(job)
    return _timed(job, threads, list(_batches(waves, size)), list(_batches(texts, size)))


def ours(job: Job, work: Path) -> dict[str, float]:
    """From files to committed shards, by workers that have loaded the encoders already."""
    device = torch.device(job.device)
    gpus = visible_gpus() if device.type == "cuda" else []
    workers = default_workers(device)
    threads = threads_of(device, max(1, cores() // workers))
    with local_cluster(workers, threads, gpus) as cluster:
        address = cluster.client.scheduler.address
        _extract(job, work / "warm-up", scheduler=address, limit=8)
        started = time.perf_counter()
        _extract(job, work / "cache", scheduler=address)
        return {"seconds": time.perf_counter() - started}


def as_typed(job: Job, work: Path) -> dict[str, float]:
    """The same with the start of the workers, and the loading of the encoders there."""
    started = time.perf_counter()
    _extract(job, work / "cache-as-typed")
    return {"seconds": time.perf_counter() - started}


def _extract(job: Job, cache: Path, **changes: Any) -> None:
    encoders = {"speech": str(job.speech), "text": str(job.text)}
    settings = ExtractSettings(
        "manifest",
        None,
        cache,
        encoders,
        manifest=job.manifest,
        name="measured",
        device=job.device,
    )
    summary = extract(replace(settings, **changes))
    assert all(one.new for one in summary.modalities)
    shutil.rmtree(cache)


def _timed(job: Job, threads: int, waves: list[Any], texts: list[Any]) -> dict[str, float]:
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    extractor = AutoFeatureExtractor.from_pretrained(job.speech)
    tokenizer = AutoTokenizer.from_pretrained(job.text)
    speech, text = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(job.device)
        for folder in (job.speech, job.text)
    )

    def forward(model: Any, inputs: Any) -> None:
        with torch.inference_mode():
            model(**inputs.to(job.device), output_hidden_states=True)

    def all_passes(waves: list[Any], texts: list[Any]) -> None:
        for batch in waves:
            pads = {"padding": True, "return_attention_mask": True} if len(batch) > 1 else {}
            forward(speech, extractor(batch, sampling_rate=RATE, return_tensors="pt", **pads))
        for batch in texts:
            forward(text, tokenizer(batch, return_tensors="pt", padding=len(batch) > 1))
        if job.device == "cuda":
            torch.cuda.synchronize()

    all_passes(waves[:2], texts[:2])
    started = time.perf_counter()
    all_passes(waves, texts)
    return {"seconds": time.perf_counter() - started}


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
