"""A head that reads dialogues gets whole dialogues, in the order of their turns."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mser.pipeline.corpora import Utterance
from mser.pipeline.runs import evaluate
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.jobs import build, examples_of, trainer_of
from mser.tests.support.train_runs import made_both, make_utterance, results, rows, timeless, tiny


def talks() -> list[Utterance]:
    """Dialogues of one to six utterances, in random order, and utterances without a dialogue."""
    corpus = [
        make_utterance(f"{split}/d{n}u{turn}", dialogue=f"{split}/d{n}", turn=turn, split=split)
        for split, count in (("train", 12), ("validation", 4), ("test", 5))
        for n in range(count)
        for turn in range(1 + n % 6)
    ]
    corpus += [
        make_utterance(f"{split}/alone{n}", dialogue=None, split=split)
        for split in ("train", "test")
        for n in range(3)
    ]
    random.Random(0).shuffle(corpus)
    return corpus


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities. Do not change them."""
    return made_both(tmp_path_factory.mktemp("dialogues") / "cache", talks())


def test_the_same_run_twice_gives_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    asked = ("epochs=2", "accumulate=2", "head.dropout=0.2", "batch_size=4")
    first, again = (
        train_head(tiny("hbaf", cache, tmp_path / name, *asked, seeds=(0, 1)))
        for name in ("first", "again")
    )
    assert results(again) == results(first)
    assert timeless(again) == timeless(first)
    tested = [utterance.id for utterance in talks() if utterance.split == "test"]
    for seed in ("0", "1"):
        assert sorted(r["id"] for r in rows(first) if r["seed"] == seed) == sorted(tested)
    found = evaluate(first.path, device="cpu").facts
    assert found["aggregate"] == first.metrics["aggregate"]


def logits(settings: TrainSettings, chosen: list[Utterance]) -> dict[str, torch.Tensor]:
    """The logits of an untrained head that gets only the chosen utterances."""
    examples = examples_of(settings)
    torch.manual_seed(0)
    head = build(settings, examples)
    trainer = trainer_of(settings, examples)
    found = trainer.predict(head, trainer.features(head), chosen)
    return {utterance.id: row for utterance, row in zip(chosen, found, strict=True)}


def test_the_context_of_an_utterance_is_its_own_dialogue(cache: Path, tmp_path: Path) -> None:
    settings = tiny("hbaf", cache, tmp_path)
    examples = examples_of(settings)
    whole = list(examples.utterances)
    of_all = logits(settings, whole)
    for size in (1, 3, 100):  # a dialogue of more utterances is a batch by itself
        shuffled = random.Random(size).sample(whole, len(whole))
        other = logits(replace(settings, batch_size=size), shuffled)
        for id, row in other.items():
            torch.testing.assert_close(row, of_all[id], atol=1e-5, rtol=0)
    dialogue = [utterance for utterance in whole if utterance.dialogue == "train/d5"]
    assert len(dialogue) == 6
    for id, row in logits(settings, dialogue).items():
        torch.testing.assert_close(row, of_all[id], atol=1e-5, rtol=0)
    cut = [utterance for utterance in dialogue if utterance.turn != 3]
    for id, row in logits(settings, cut).items():
        assert (row - of_all[id]).abs().max() > 1e-5  # a turn is missing from the context
