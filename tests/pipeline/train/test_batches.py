"""Batches hold every utterance once, with as little padding as possible."""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.cache import FeatureCache
from mser.heads import HeadError
from mser.pipeline.corpora import Utterance
from mser.pipeline.train import batches as batches_module
from mser.pipeline.train.batches import BatchSampler
from mser.pipeline.train.examples import TrainingExamples, find_examples
from mser.pipeline.train.features import FeatureLoader
from mser.tests.support.page_cache import resident_bytes
from mser.tests.support.train_runs import CLASSES, made_cache, make_utterance, official


def lengths_of(corpus: Sequence[Utterance], seed: int = 0) -> dict[str, int]:
    drawn = random.Random(seed)
    return {utterance.id: drawn.randint(1, 12) for utterance in corpus}


def batches_of(
    examples: TrainingExamples, size: int, generator: torch.Generator | None
) -> list[list[Utterance]]:
    steps = BatchSampler(examples.utterances, size, examples.length).steps(generator)
    return [batch for step in steps for batch in step]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_batches_cover_every_utterance_once(tmp_path: Path, size: int, shuffled: bool) -> None:
    corpus = official(train=150)
    cache = made_cache(tmp_path, corpus, frames=lengths_of(corpus))
    examples = find_examples(cache, "made-up", {"speech": None})
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = batches_of(examples, size, generator)
    assert sorted(utterance.id for batch in batches for utterance in batch) == sorted(
        utterance.id for utterance in corpus
    )
    assert all(1 <= len(batch) <= size for batch in batches)
    assert len(batches) == -(-len(corpus) // size)
    if shuffled and size == 7:
        next_epoch = batches_of(examples, size, generator)
        together = [
            {frozenset(utterance.id for utterance in b) for b in some}
            for some in (batches, next_epoch)
        ]
        assert together[0] != together[1]
        again = torch.Generator().manual_seed(0)
        assert batches_of(examples, size, again) == batches


@given(
    frames=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    size=st.integers(1, 20),
    shuffled=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_step_of_long_utterances_is_divided_into_batches_with_negatives(
    frames: list[int], size: int, shuffled: bool
) -> None:
    corpus = [make_utterance(f"u{number}") for number in range(len(frames))]
    frames_of = {utterance.id: count for utterance, count in zip(corpus, frames, strict=True)}
    plan = BatchSampler(corpus, size, lambda utterance: frames_of[utterance.id])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "_MOST_FRAMES", 100)
        steps = plan.steps(torch.Generator().manual_seed(0) if shuffled else None)
    assert Counter(u.id for step in steps for batch in step for u in batch) == Counter([*frames_of])
    # The last step of a group may be smaller.
    assert sorted(sum(map(len, step)) for step in steps)[1:] == [size] * (len(steps) - 1)
    for step in steps:
        count = sum(map(len, step))
        longest = max(frames_of[u.id] for batch in step for u in batch)
        assert len(step) == 1 or longest * count > 100
        for batch in step:
            # Up to three that would be too few for a batch of their own may be added.
            padded = (len(batch) - 3) * max(frames_of[u.id] for u in batch)
            assert padded <= 100 or len(batch) < 8
            assert len(batch) >= min(4, count)


def test_without_utterances_there_are_no_batches() -> None:
    assert BatchSampler([], 4, lambda utterance: 1).steps() == []
    assert BatchSampler([], 4, lambda utterance: 1, by_dialogue=True).steps() == []


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    most=st.integers(1, 12),
    seed=st.integers(0, 99),
    shuffled=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_dialogues_stay_whole_and_in_the_order_of_their_turns(
    sizes: list[int], most: int, seed: int, shuffled: bool
) -> None:
    corpus = [
        make_utterance(f"d{n}u{turn}", dialogue=f"d{n}", turn=turn)
        for n, size in enumerate(sizes)
        for turn in range(size)
    ]
    random.Random(seed).shuffle(corpus)
    plan = BatchSampler(
        corpus, most, lambda utterance: 1 + int(utterance.turn or 0), by_dialogue=True
    )
    steps = plan.steps(torch.Generator().manual_seed(seed) if shuffled else None)
    batches = [batch for step in steps for batch in step]
    assert sorted(utterance.id for batch in batches for utterance in batch) == sorted(
        utterance.id for utterance in corpus
    )
    for batch in batches:
        found = [(utterance.dialogue, utterance.turn) for utterance in batch]
        names = list(dict.fromkeys(name for name, _ in found))
        whole = [(n, turn) for n in names for turn in range(sizes[int(str(n)[1:])])]
        assert found == whole
        assert len(batch) <= most or len(names) == 1


@pytest.mark.parametrize("keep", ["memory", "stream"])
def test_a_batch_is_padded_with_zeros_and_holds_the_chosen_layers(
    tmp_path: Path, keep: str
) -> None:
    corpus = official()
    frames = lengths_of(corpus)
    cache = made_cache(tmp_path, corpus, frames=frames)
    examples = find_examples(cache, "made-up", {"speech": None})
    chosen = examples.utterances[3:9]
    features = FeatureLoader(examples, {"speech": (1,)}, torch.device("cpu"), keep)
    plan = BatchSampler(chosen, 6, examples.length)
    (batch,) = features.batches(plan, [chosen])
    assert batch.dialogues is None
    longest = max(frames[utterance.id] for utterance in chosen)
    assert batch.features["speech"].shape == (6, 1, longest, 6)
    assert batch.lengths["speech"].tolist() == [frames[utterance.id] for utterance in chosen]
    assert [CLASSES[n] for n in batch.labels] == [utterance.label for utterance in chosen]
    entry = FeatureCache(cache).open("made-up")
    for utterance, padded in zip(chosen, batch.features["speech"].numpy(), strict=True):
        assert np.array_equal(padded[0, : frames[utterance.id]], entry[utterance.id][1])
        assert not padded[0, frames[utterance.id] :].any()


def test_streamed_batches_are_equal_to_batches_from_memory(tmp_path: Path) -> None:
    corpus = official(train=40)
    cache = made_cache(tmp_path, corpus, frames=lengths_of(corpus))
    examples = find_examples(cache, "made-up", {"speech": None})
    plan = BatchSampler(examples.utterances, 7, examples.length)
    order = plan.order()
    found = [
        list(
            FeatureLoader(examples, {"speech": (1, 0)}, torch.device("cpu"), keep).batches(
                plan, order
            )
        )
        for keep in ("memory", "stream")
    ]
    for first, second in zip(*found, strict=True):
        assert torch.equal(first.features["speech"], second.features["speech"])
        assert torch.equal(first.lengths["speech"], second.lengths["speech"])
        assert torch.equal(first.labels, second.labels)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
@pytest.mark.parametrize("keep", ["auto", "stream"])
def test_only_stream_releases_the_features_of_batches_that_were_read(
    tmp_path: Path, keep: str
) -> None:
    corpus = official(train=40)
    cache = made_cache(tmp_path, corpus, frames=lengths_of(corpus))
    examples = find_examples(cache, "made-up", {"speech": None})
    plan = BatchSampler(examples.utterances, 7, examples.length)
    features = FeatureLoader(examples, {"speech": (0, 1)}, torch.device("cpu"), keep)
    for _ in features.batches(plan, plan.order()):
        pass
    assert bool(resident_bytes(cache)) == (keep == "auto")


def test_a_missing_modality_has_no_frames(tmp_path: Path) -> None:
    examples = find_examples(made_cache(tmp_path, official()), "made-up", {"speech": None})
    plan = BatchSampler(examples.utterances, 64, examples.length)
    features = FeatureLoader(examples, {"speech": (0,)}, torch.device("cpu"))
    (batch,) = features.batches(plan, plan.order(), missing=["speech"])
    assert not batch.lengths["speech"].any()


def test_the_size_of_a_dialogue_is_its_size_in_the_part(tmp_path: Path) -> None:
    corpus = [
        replace(utterance, dialogue=utterance.id[:-1], turn=n)
        for n, utterance in enumerate(official())
    ]
    examples = find_examples(made_cache(tmp_path, corpus), "made-up", {"speech": None})
    plan = BatchSampler(examples.utterances, 64, examples.length, by_dialogue=True)
    features = FeatureLoader(examples, {"speech": (0,)}, torch.device("cpu"))
    (whole,) = features.batches(plan, plan.order())
    assert whole.dialogues is not None
    assert sum(whole.dialogues.lengths().tolist()) == len(corpus)
    (cut,) = features.batches(plan, [plan.order()[0][:-1]])
    assert cut.dialogues is not None
    with pytest.raises(HeadError, match="is cut"):
        cut.dialogues.lengths()
