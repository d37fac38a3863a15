"""Synthetic features: random numbers in the shape of wav2vec2-base, utterances as long as MELD's.

They are drawn from fixed seeds, so two entries of one size hold the same numbers.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import Entry, EntrySpec, FeatureCache, UtteranceFeatures

DATASET, DTYPE = "synthetic-features", "float16"
LAYERS, DIM, FRAMES_PER_SECOND = 13, 768, 50
FRAME_BYTES = 2 * DIM  # of one layer
LONGEST = 15  # seconds
SHARD_BYTES = 64 * 2**20

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class UtteranceLayout:
    """The ids and lengths of synthetic utterances, and where each lies in the shards."""

    ids: list[str]
    """One id per utterance."""
    frames: list[int]
    """The number of frames of each utterance."""
    shards: list[int]
    """The number of the shard that holds the utterance, from 0."""
    starts: list[int]
    """The utterance's first frame within its shard."""


def draw_layout(gigabytes: float) -> UtteranceLayout:
    """Draw utterances of 0.5 to 15 s, 3 s on average, until they fill so many gigabytes."""
    rng = np.random.default_rng(0)
    layout = UtteranceLayout([], [], [], [])
    shard = start = 0
    while sum(layout.frames) * LAYERS * FRAME_BYTES < gigabytes * 1e9:
        seconds = np.clip(rng.lognormal(np.log(2.5), 0.6), 0.5, LONGEST)
        layout.ids.append(f"train/dia{len(layout.ids) // 10}_utt{len(layout.ids) % 10}")
        layout.frames.append(int(seconds * FRAMES_PER_SECOND))
        layout.shards.append(shard)
        layout.starts.append(start)
        start += layout.frames[-1]
        if start * LAYERS * FRAME_BYTES >= SHARD_BYTES:
            shard, start = shard + 1, 0
    return layout


def draw_shards(layout: UtteranceLayout) -> Iterator[list[UtteranceFeatures]]:
    """Yield the features of the utterances, shard by shard, the same numbers on every call."""
    rng = np.random.default_rng(1)
    shard: list[UtteranceFeatures] = []
    for id, frames, start in zip(layout.ids, layout.frames, layout.starts, strict=True):
        if shard and not start:
            yield shard
            shard = []
        shard.append(features(id, rng.standard_normal((LAYERS, frames, DIM), "float32")))
    yield shard


def features(id: str, states: Array) -> UtteranceFeatures:
    """Return hidden states, (layers, frames, dim), as float16 with a made-up content hash."""
    return UtteranceFeatures(id, hashlib.sha256(id.encode()).hexdigest(), states.astype(DTYPE))


def make_entry(
    root: Path | FeatureCache,
    shards: Iterable[list[UtteranceFeatures]],
    layers: int = LAYERS,
    dim: int = DIM,
    modality: str = "speech",
    **how: str,
) -> Entry:
    """Write and open an entry of a cache, or of the cache in a folder.

    ``how`` are the writer's options ``store`` and ``compression``.
    """
    cache = root if isinstance(root, FeatureCache) else FeatureCache(root)
    spec = EntrySpec(DATASET, modality, "random", {"seed": 1}, tuple(range(layers)), dim, DTYPE)
    writer = cache.writer(spec, {"made by": "benchmarks/read.py"}, **how)
    for number, shard in enumerate(shards):
        writer.write_shard(number, shard)
    writer.publish("0" * 12)
    return cache.open(DATASET, modality=modality)


def tiny_shards(count: int) -> Iterator[list[UtteranceFeatures]]:
    """Yield ``count`` utterances of 2 layers, 8 wide, 1 to 3 frames; 50,000 in each shard."""
    rng = np.random.default_rng(3)
    for start in range(0, count, 50_000):
        states = rng.standard_normal((2, 3 * 50_000, 8), "float32").astype(DTYPE)
        yield [
            features(f"train/utt{number}", states[:, 3 * (number - start) :][:, : 1 + number % 3])
            for number in range(start, min(start + 50_000, count))
        ]
