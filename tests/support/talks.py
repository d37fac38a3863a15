"""A corpus of dialogues in which some turns have no label."""

import random
from dataclasses import replace

from mser.pipeline.corpora import Utterance
from mser.tests.support.train_runs import make_utterance


def talks() -> list[Utterance]:
    """Dialogues of six turns by two speakers; the second and the fifth turn have no label."""
    corpus = [
        make_utterance(
            f"{split}/d{n}u{turn}",
            dialogue=f"{split}/d{n}",
            turn=turn,
            split=split,
            speaker=f"{split}/d{n}/{turn % 2}",
        )
        for split, count in (("train", 8), ("validation", 3), ("test", 3))
        for n in range(count)
        for turn in range(6)
    ]
    corpus = [replace(u, label=None) if u.turn in (1, 4) else u for u in corpus]
    corpus.append(make_utterance("train/alone", dialogue=None, label=None, split="train"))
    corpus += [  # a dialogue without any label
        make_utterance(f"test/silent{n}", dialogue="test/silent", turn=n, label=None, split="test")
        for n in range(2)
    ]
    random.Random(0).shuffle(corpus)
    return corpus
