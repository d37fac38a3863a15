"""Work that is done on ever more utterances, each time in a fresh process."""

import hashlib
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
from mser.benchmarks.processes import Result, most_private
from mser.benchmarks.train_steps import Training
from mser.cache import Entry, FeatureCache
from mser.pipeline.compute import local_cluster, visible_gpus
from mser.pipeline.compute.device import chosen_device, cores
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.crew import threads_of
from mser.pipeline.train import TrainSettings
from mser.pipeline.train.determinism import reproducible
from mser.pipeline.train.examples import Examples
from mser.pipeline.train.features import FeatureLoader

WARM_UP = 8  # utterances


def extract_more(settings: ExtractSettings, same: Sequence[str], known: Path) -> Result:
    """Extract a corpus in this process, once it has loaded the encoders.

    ``same`` are ids of utterances of which the features must be those of the file ``known``, which
    the first extraction writes.
    """
    extract_aside(settings, WARM_UP)
    with most_private() as found:
        seconds = _seconds(settings)
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    return {
        "s": seconds,
        **found,
        "MB on disk": FeatureCache(settings.cache).root.size() / 1e6,
        "MB of features": sum(map(payload, entries)) / 1e6,
        "utterances": len(entries[0]),
        "largest error": largest_error(entries, same, known),
    }


def train_more(settings: TrainSettings, examples: Examples) -> Result:
    """Train an epoch, its batches streamed from the cache, when one batch has warmed all up."""
    device = torch.device(settings.device)
    with reproducible():
        training = Training(settings, examples, device)
        features = FeatureLoader(examples, training.layers, device, "stream")
        training.epoch(features, examples.utterances[: settings.batch_size])
        with most_private() as found:
            begin = time.perf_counter()
            loss = training.epoch(features)  # a number on the CPU, so that a GPU is done with it
            seconds = time.perf_counter() - begin
    return {"s": seconds, **found, "loss": loss}


def extract_by(workers: int, settings: ExtractSettings, same: Sequence[str]) -> Result:
    """Extract a corpus as typed, and then again where the encoders are loaded already.

    No ``workers`` are this process without Dask.
    """
    typed = _seconds(replace(settings, workers=workers))
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    known = features_of(entries, same)
    shutil.rmtree(settings.cache)
    with _workers(workers, settings) as warm:
        extract_aside(warm)
        seconds = _seconds(warm)
    entries = FeatureCache(settings.cache).entries(settings.dataset)
    assert features_of(entries, same) == known
    return {"as typed": typed, "warm": seconds, "features": known}


def extract_aside(settings: ExtractSettings, limit: int | None = None) -> None:
    """Load the encoders where the work will be done, by an extraction that is thrown away."""
    aside = Path(f"{settings.cache}-warm-up")
    extract(replace(settings, cache=aside, limit=limit))
    shutil.rmtree(aside)


def features_of(entries: Sequence[Entry], ids: Sequence[str]) -> str:
    """A hash of the features of these utterances, in all entries."""
    known = hashlib.sha256()
    for entry in sorted(entries, key=lambda one: one.spec.modality):
        for id in ids:
            known.update(entry.checksum(id).encode())
    return known.hexdigest()


def largest_error(entries: Sequence[Entry], ids: Sequence[str], known: Path) -> float:
    """The largest error of a frame, by what the file holds; where there is none it is written."""
    found: dict[str, Any] = {
        f"{one.spec.modality} {at}": one[id] for one in entries for at, id in enumerate(ids)
    }
    if not known.exists():
        np.savez(known, **found)
    with np.load(known) as right:
        assert set(right) == set(found)
        return max(float(frame_errors(found[one], right[one]).max()) for one in found)


def payload(entry: Entry) -> int:
    """Bytes of the numbers themselves."""
    frames = sum(map(entry.length, entry.ids))
    return frames * entry.n_layers * entry.dim * np.dtype(entry.spec.dtype).itemsize


def _seconds(settings: ExtractSettings) -> float:
    begin = time.perf_counter()
    summary = extract(settings)
    seconds = time.perf_counter() - begin
    assert all(one.new == one.total for one in summary.modalities)
    return seconds


@contextmanager
def _workers(count: int, settings: ExtractSettings) -> Iterator[ExtractSettings]:
    """Have the settings of an extraction by workers that are there already."""
    device = chosen_device(settings.device)
    if not count:
        yield replace(settings, workers=0)
        return
    gpus = visible_gpus() if device.type == "cuda" else []
    threads = threads_of(device, max(1, cores() // count))  # as many as the plain command has
    with local_cluster(count, threads, gpus) as cluster:
        yield replace(settings, scheduler=cluster.client.scheduler_info()["address"])
