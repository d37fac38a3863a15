"""Synthetic features: random numbers in the shape of wav2vec2-base, utterances as long as MELD's.

They are drawn from fixed seeds, so that two entries of one size hold the same.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import Entry, EntrySpec, FeatureCache, UtteranceFeatures

DATASET, DTYPE = "synthetic-features", "float16"
LAYERS, DIM, FRAMES_A_SECOND = 13, 768, 50
FRAME_BYTES = 2 * DIM  # of one layer
LONGEST = 15  # seconds
SHARD_BYTES = 64 * 2**20

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Utterances:
    """Made-up utterances, and where each lies: ``frames`` from ``starts`` on in ``shards``."""

    ids: list[str]
    frames: list[int]
    shards: list[int]
    starts: list[int]


def draw_utterances(gigabytes: float) -> Utterances:
    """Utterances of 0.5 to 15 s, 3 s in the mean, until they are as many bytes as wanted."""
    rng = np.random.default_rng(0)
    made = Utterances([], [], [], [])
    shard = start = 0
    while sum(made.frames) * LAYERS * FRAME_BYTES < gigabytes * 1e9:
        seconds = np.clip(rng.lognormal(np.log(2.5), 0.6), 0.5, LONGEST)
        made.ids.append(f"train/dia{len(made.ids) // 10}_utt{len(made.ids) % 10}")
        made.frames.append(int(seconds * FRAMES_A_SECOND))
        made.shards.append(shard)
        made.starts.append(start)
        start += made.frames[-1]
        if start * LAYERS * FRAME_BYTES >= SHARD_BYTES:
            shard, start = shard + 1, 0
    return made


def draw_shards(made: Utterances) -> Iterator[list[UtteranceFeatures]]:
    """The features of the utterances, shard by shard, the same each time."""
    rng = np.random.default_rng(1)
    shard: list[UtteranceFeatures] = []
    for id, frames, start in zip(made.ids, made.frames, made.starts, strict=True):
        if shard and not start:
            yield shard
            shard = []
        shard.append(features(id, rng.standard_normal((LAYERS, frames, DIM), "float32")))
    yield shard


def features(id: str, states: Array) -> UtteranceFeatures:
    return UtteranceFeatures(id, hashlib.sha256(id.encode()).hexdigest(), states.astype(DTYPE))


def make_entry(
    root: Path,
    shards: Iterable[list[UtteranceFeatures]],
    layers: int = LAYERS,
    dim: int = DIM,
    modality: str = "speech",
    **how: str,
) -> Entry:
    spec = EntrySpec(DATASET, modality, "random", {"seed": 1}, tuple(range(layers)), dim, DTYPE)
    writer = FeatureCache(root).writer(spec, {"made by": "benchmarks/read.py"}, **how)
    for number, shard in enumerate(shards):
        writer.write_shard(number, shard)
    writer.publish("0" * 12)
    return FeatureCache(root).open(DATASET, modality=modality)


def tiny_shards(count: int) -> Iterator[list[UtteranceFeatures]]:
    """Utterances of 2 layers, 8 wide, and 1 to 3 frames, 50,000 in a shard."""
    rng = np.random.default_rng(3)
    for start in range(0, count, 50_000):
        states = rng.standard_normal((2, 3 * 50_000, 8), "float32").astype(DTYPE)
        yield [
            features(f"train/utt{at}", states[:, 3 * (at - start) :][:, : 1 + at % 3])
            for at in range(start, min(start + 50_000, count))
        ]
