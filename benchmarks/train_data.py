"""**Synthetic** examples to train on: random hidden states of two modalities, and random labels.

Speech is wav2vec2-base's (768 wide, 50 frames a second), text is BERT-base's (768 wide, 1 to 30
tokens), both float16 as they are cached by default. A head learns nothing from them; what is said
changes no speed, but for the lengths, which are those of a corpus.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mser.benchmarks.synthetic import (
    DATASET,
    DIM,
    DTYPE,
    FRAMES_A_SECOND,
    SHARD_BYTES,
    features,
    make_entry,
)
from mser.cache import UtteranceFeatures
from mser.pipeline.corpora import Corpus, Utterance
from mser.pipeline.train.examples import TrainingExamples

CLASSES = ("angry", "happy", "neutral", "sad")
LONGEST_TEXT = 30  # tokens


class Lengths(NamedTuple):
    """Durations in seconds: log-normal about a median, cut at both ends."""

    median: float
    sigma: float
    shortest: float
    longest: float


MELD = Lengths(2.5, 0.6, 0.5, 15)  # 3 s in the mean
IEMOCAP = Lengths(3.65, 0.65, 0.6, 34)  # 4.5 s in the mean


def make_examples(root: Path, count: int, like: Lengths, layers: int) -> TrainingExamples:
    """Fill a cache with so many utterances of both modalities, of so many layers each."""
    rng = np.random.default_rng(0)
    seconds = np.clip(
        rng.lognormal(np.log(like.median), like.sigma, count), like.shortest, like.longest
    )
    tokens = np.clip(2 + 2.5 * seconds, 1, LONGEST_TEXT)
    utterances = [
        Utterance(f"train/utt{at}", None, None, label, None, None, None, None, "train")
        for at, label in enumerate(rng.choice(CLASSES, count).tolist())
    ]
    lengths = {"speech": seconds * FRAMES_A_SECOND, "text": tokens}
    ids = [one.id for one in utterances]
    entries = {
        modality: make_entry(
            root, _shards(ids, found.astype(int).tolist(), layers), layers, modality=modality
        )
        for modality, found in lengths.items()
    }
    corpus = Corpus(DATASET, utterances, CLASSES, "official")
    return TrainingExamples(corpus, entries, tuple(utterances), {}, {})


def _shards(ids: list[str], lengths: list[int], layers: int) -> Iterator[list[UtteranceFeatures]]:
    """Shards of utterances that are pieces of one block of numbers: drawing more takes minutes."""
    rng = np.random.default_rng(1)
    block = rng.standard_normal((layers, 4 * max(lengths), DIM), "float32").astype(DTYPE)
    shard: list[UtteranceFeatures] = []
    for id, length in zip(ids, lengths, strict=True):
        start = int(rng.integers(block.shape[1] - length))
        shard.append(features(id, block[:, start : start + length]))
        if sum(one.hidden_states.nbytes for one in shard) >= SHARD_BYTES:
            yield shard
            shard = []
    if shard:
        yield shard
