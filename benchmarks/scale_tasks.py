"""The tasks whose growth with the number of utterances is measured, each in a fresh process."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mser.benchmarks.frame_errors import frame_errors
from mser.benchmarks.processes import Result, peak_private_memory
from mser.benchmarks.train_steps import Training
from mser.cache import Entry, FeatureCache
from mser.pipeline.compute import visible_gpus
from mser.pipeline.compute.device import chosen_device, cores
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.engine import threads_of
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.determinism import reproducible
from mser.pipeline.train.examples import TrainingExamples
from mser.pipeline.train.features import FeatureLoader

WARM_UP = 8  # utterances


def extract_corpus(
    settings: ExtractSettings, compared_ids: Sequence[str], reference: Path
) -> Result:
    """Extract a corpus in this process, after the encoders are loaded.

    Args:
        settings: of the extraction.
        compared_ids: utterances whose features are compared with the reference.
        reference: a NumPy file of their features; the first extraction writes it.
    """
    warm_up(settings, WARM_UP)
    with peak_private_memory() as memory:
        seconds = _extract_seconds(settings)
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    return {
        "seconds": seconds,
        **memory,
        "MB on disk": FeatureCache(settings.cache).root.size() / 1e6,
        "MB of features": sum(map(feature_bytes, entries)) / 1e6,
        "utterances": len(entries[0]),
        "largest error": largest_error(entries, compared_ids, reference),
    }


def keep_books(settings: ExtractSettings, training: TrainSettings) -> Result:
    """Extract a corpus that the cache holds already, and train ``linear`` on it for an epoch."""
    warm_up(settings, WARM_UP)
    with peak_private_memory() as memory:
        begin = time.perf_counter()
        summary = extract(settings)
        again = time.perf_counter() - begin
    assert not any(modality.new or modality.pending for modality in summary.modalities)
    begin = time.perf_counter()
    run = train_head(training)
    trained = time.perf_counter() - begin
    (line,) = map(json.loads, (run.path / "log.jsonl").read_text("utf-8").splitlines())
    shutil.rmtree(run.path)
    return {
        "extract again, s": again,
        **memory,
        "train for an epoch, s": trained,
        "the epoch itself, s": line["seconds"],
    }


def train_epoch(settings: TrainSettings, examples: TrainingExamples) -> Result:
    """Train one epoch with batches streamed from the cache, after a warm-up of one batch."""
    device = torch.device(settings.device)
    with reproducible():
        training = Training(settings, examples, device)
        features = FeatureLoader(examples, training.layers, device, "stream")
        training.epoch(features, examples.utterances[: settings.batch_size])
        with peak_private_memory() as memory:
            begin = time.perf_counter()
            # The loss is a number on the CPU, so a GPU has finished when it is returned.
            loss = training.epoch(features)
            seconds = time.perf_counter() - begin
    return {"seconds": seconds, **memory, "loss": loss}


def extract_with_workers(
    workers: int, settings: ExtractSettings, compared_ids: Sequence[str]
) -> Result:
    """Extract a corpus from a cold start, then again with workers that have loaded the encoders.

    0 ``workers`` means this process, without Dask.
    """
    cold = _extract_seconds(replace(settings, workers=workers))
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    checksum = features_checksum(entries, compared_ids)
    shutil.rmtree(settings.cache)
    with _running_workers(workers, settings) as warm:
        warm_up(warm)
        seconds = _extract_seconds(warm)
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    assert features_checksum(entries, compared_ids) == checksum
    return {"cold start": cold, "warm": seconds, "features": checksum}


def warm_up(settings: ExtractSettings, limit: int | None = None) -> None:
    """Load the encoders where the extraction will run, with an extraction that is deleted."""
    cache = Path(f"{settings.cache}-warm-up")
    extract(replace(settings, cache=cache, limit=limit))
    shutil.rmtree(cache)


def features_checksum(entries: Sequence[Entry], ids: Sequence[str]) -> str:
    """Return a hash of the features of these utterances in all entries."""
    checksum = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.spec.modality):
        for id in ids:
            checksum.update(entry.checksum(id).encode())
    return checksum.hexdigest()


def largest_error(entries: Sequence[Entry], ids: Sequence[str], reference: Path) -> float:
    """Return the largest error of a frame against the reference; write the file if it is absent."""
    states: dict[str, Any] = {
        f"{entry.spec.modality} {number}": entry[id]
        for entry in entries
        for number, id in enumerate(ids)
    }
    if not reference.exists():
        np.savez(reference, **states)
    with np.load(reference) as expected:
        assert set(expected) == set(states)
        return max(float(frame_errors(states[name], expected[name]).max()) for name in states)


def feature_bytes(entry: Entry) -> int:
    """Return the bytes of an entry's numbers alone."""
    frames = sum(map(entry.length, entry.ids))
    return frames * entry.n_layers * entry.dim * np.dtype(entry.spec.dtype).itemsize


def _extract_seconds(settings: ExtractSettings) -> float:
    begin = time.perf_counter()
    summary = extract(settings)
    seconds = time.perf_counter() - begin
    assert all(modality.new == modality.total for modality in summary.modalities)
    return seconds


@contextmanager
def _running_workers(count: int, settings: ExtractSettings) -> Iterator[ExtractSettings]:
    """Start workers; yield the settings of an extraction that uses them."""
    device = chosen_device(settings.device)
    if not count:
        yield replace(settings, workers=0)
        return
    gpus = visible_gpus() if device.type == "cuda" else []
    threads = threads_of(device, max(1, cores() // count))  # as in `mser extract`
    with local_cluster(count, threads, gpus) as cluster:
        yield replace(settings, scheduler=cluster.client.scheduler_info()["address"])
