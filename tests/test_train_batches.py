"""Batches hold every utterance once, padded no further than they need be."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mser.cache import FeatureCache
from mser.pipeline.corpora import Utterance
from mser.pipeline.train import examples as examples_module
from mser.pipeline.train.examples import find_examples
from mser.tests.train_runs import CLASSES, made_cache, official


def lengths_of(corpus: Sequence[Utterance], seed: int = 0) -> dict[str, int]:
    drawn = random.Random(seed)
    return {one.id: drawn.randint(1, 12) for one in corpus}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_batches_cover_every_utterance_once(tmp_path: Path, size: int, shuffled: bool) -> None:
    corpus = official(train=150)
    cache = made_cache(tmp_path, corpus, frames=lengths_of(corpus))
    examples = find_examples(cache, "made-up", {"speech": None})
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = list(examples.in_batches(examples.utterances, size, generator))
    assert sorted(one.id for batch in batches for one in batch) == sorted(o.id for o in corpus)
    assert all(1 <= len(batch) <= size for batch in batches)
    assert len(batches) == -(-len(corpus) // size)
    if shuffled and size == 7:
        next_epoch = list(examples.in_batches(examples.utterances, size, generator))
        together = [{frozenset(o.id for o in b) for b in some} for some in (batches, next_epoch)]
        assert together[0] != together[1]
        again = torch.Generator().manual_seed(0)
        assert list(examples.in_batches(examples.utterances, size, again)) == batches


@pytest.mark.parametrize("shuffled", [False, True])
def test_long_utterances_come_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    monkeypatch.setattr(examples_module, "_MOST_FRAMES", 40)
    corpus = official()
    frames = {**lengths_of(corpus), "train/u03": 500, "train/u04": 35, "test/u01": 21}
    examples = find_examples(
        made_cache(tmp_path, corpus, frames=frames), "made-up", {"speech": None}
    )
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = list(examples.in_batches(examples.utterances, 16, generator))
    assert sorted(one.id for batch in batches for one in batch) == sorted(o.id for o in corpus)
    for batch in batches:
        padded = len(batch) * max(frames[one.id] for one in batch)
        assert padded <= 40 or len(batch) == 1
    assert ["train/u03"] in [[one.id for one in batch] for batch in batches]
    assert any(len(batch) > 3 for batch in batches)


def test_no_utterances_are_no_batches(tmp_path: Path) -> None:
    examples = find_examples(made_cache(tmp_path, official()), "made-up", {"speech": None})
    assert list(examples.in_batches([], 4)) == []


def test_a_batch_is_padded_with_zeros_and_holds_the_layers_asked_for(tmp_path: Path) -> None:
    corpus = official()
    frames = lengths_of(corpus)
    cache = made_cache(tmp_path, corpus, frames=frames)
    examples = find_examples(cache, "made-up", {"speech": None})
    chosen = examples.utterances[3:9]
    batch = examples.batch(chosen, {"speech": (1,)}, torch.device("cpu"))
    longest = max(frames[one.id] for one in chosen)
    assert batch.features["speech"].shape == (6, 1, longest, 6)
    assert batch.lengths["speech"].tolist() == [frames[one.id] for one in chosen]
    assert [CLASSES[n] for n in batch.labels] == [one.label for one in chosen]
    entry = FeatureCache(cache).open("made-up")
    for one, padded in zip(chosen, batch.features["speech"].numpy(), strict=True):
        assert np.array_equal(padded[0, : frames[one.id]], entry[one.id][1])
        assert not padded[0, frames[one.id] :].any()
