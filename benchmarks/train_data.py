"""**Synthetic** training examples: random hidden states of two modalities, and random labels.

Speech has the shape of wav2vec2-base (768 wide, 50 frames per second), text that of BERT-base (768
wide, 1 to 30 tokens), both float16, the default of the cache. A head cannot learn anything from
them. The content changes no speed; the lengths do, and they are drawn as in a real corpus.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mser.benchmarks.synthetic_features import (
    DATASET,
    DIM,
    DTYPE,
    FRAMES_PER_SECOND,
    SHARD_BYTES,
    features,
    make_entry,
)
from mser.cache import UtteranceFeatures
from mser.pipeline.corpora import Corpus, Utterance
from mser.pipeline.feature_cache import FeatureCache
from mser.pipeline.train.examples import TrainingExamples

CLASSES = ("angry", "happy", "neutral", "sad")
LONGEST_TEXT = 30  # tokens


class Lengths(NamedTuple):
    """Durations in seconds, drawn from a log-normal distribution and clipped at both ends."""

    median: float
    sigma: float
    shortest: float
    longest: float


MELD = Lengths(2.5, 0.6, 0.5, 15)  # mean 3 s
IEMOCAP = Lengths(3.65, 0.65, 0.6, 34)  # mean 4.5 s


def make_examples(root: Path, count: int, distribution: Lengths, layers: int) -> TrainingExamples:
    """Fill a cache with ``count`` utterances of both modalities, with so many layers each."""
    rng = np.random.default_rng(0)
    seconds = np.clip(
        rng.lognormal(np.log(distribution.median), distribution.sigma, count),
        distribution.shortest,
        distribution.longest,
    )
    tokens = np.clip(2 + 2.5 * seconds, 1, LONGEST_TEXT)
    utterances = [
        Utterance(f"train/utt{number}", None, None, label, None, None, None, None, "train")
        for number, label in enumerate(rng.choice(CLASSES, count).tolist())
    ]
    lengths = {"speech": seconds * FRAMES_PER_SECOND, "text": tokens}
    ids = [utterance.id for utterance in utterances]
    entries = {
        modality: make_entry(
            root, _shards(ids, frames.astype(int).tolist(), layers), layers, modality=modality
        )
        for modality, frames in lengths.items()
    }
    corpus = Corpus(DATASET, utterances, CLASSES, "official")
    return TrainingExamples(corpus, entries, tuple(utterances), {}, {}, FeatureCache(root))


def _shards(ids: list[str], lengths: list[int], layers: int) -> Iterator[list[UtteranceFeatures]]:
    """Yield shards of utterances cut from one random block: drawing each would take minutes."""
    rng = np.random.default_rng(1)
    block = rng.standard_normal((layers, 4 * max(lengths), DIM), "float32").astype(DTYPE)
    shard: list[UtteranceFeatures] = []
    for id, length in zip(ids, lengths, strict=True):
        start = int(rng.integers(block.shape[1] - length))
        shard.append(features(id, block[:, start : start + length]))
        if sum(utterance.hidden_states.nbytes for utterance in shard) >= SHARD_BYTES:
            yield shard
            shard = []
    if shard:
        yield shard
