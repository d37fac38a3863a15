"""Batches: which utterances a head processes together."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..corpora import Utterance

# Padded frames in one batch. With thirteen layers 768 wide, that is 0.3 GB in float16.
_MOST_FRAMES = 16_384
_GROUP = 20  # batches


def dialogue_of(utterance: Utterance) -> str:
    """Return the dialogue of an utterance; without one, the utterance is its own dialogue."""
    return utterance.id if utterance.dialogue is None else utterance.dialogue


class BatchSampler:
    """Divides the utterances of a part of a fold into batches.

    The utterances of a batch have similar lengths, so that there is little padding. When shuffled,
    utterances are sorted by length only within groups of twenty batches, so that each epoch has
    different batches. Very long utterances come in smaller batches: a wrongly cut clip of five
    minutes does not need the memory of thirty such clips.

    Args:
        utterances: the utterances of the part that have a label.
        size: the largest number of utterances in a batch.
        length: gives the frames of an utterance's longest modality.
        by_dialogue: keep each dialogue together, its utterances in the order of their turns. A
            dialogue of more than ``size`` utterances is a batch by itself.
        context: turns of these dialogues that are only context; only with ``by_dialogue``.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        size: int,
        length: Callable[[Utterance], int],
        by_dialogue: bool = False,
        context: Sequence[Utterance] = (),
    ) -> None:
        self.size, self.length = size, length
        self.context = frozenset(turn.id for turn in context)
        if by_dialogue:
            of_dialogue: dict[str, list[Utterance]] = {}
            for utterance in (*utterances, *context):
                of_dialogue.setdefault(dialogue_of(utterance), []).append(utterance)
            self.units = [sorted(units, key=_turn) for units in of_dialogue.values()]
        else:
            self.units = [[utterance] for utterance in utterances]
        sizes = Counter(map(dialogue_of, (*utterances, *context)))
        self.dialogue_sizes = sizes if by_dialogue else None

    def order(self, shuffle: torch.Generator | None = None) -> list[list[Utterance]]:
        """Return the batches; ``shuffle`` puts them into random order."""
        units = self.units
        if shuffle is not None:
            units = [units[i] for i in torch.randperm(len(units), generator=shuffle)]
        units_in_batch = max(1, self.size * len(units) // max(1, sum(map(len, units))))
        group = _GROUP * units_in_batch if shuffle is not None else max(1, len(units))
        batches: list[list[Utterance]] = []
        for start in range(0, len(units), group):
            batches += self._divided(sorted(units[start : start + group], key=self._longest))
        if shuffle is not None:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=shuffle)]
        return batches

    def _divided(self, units: list[list[Utterance]]) -> list[list[Utterance]]:
        batches: list[list[Utterance]] = []
        batch: list[Utterance] = []
        for unit in units:
            # The units are sorted, so this is the longest one; the batch is padded to its length.
            count = len(batch) + len(unit)
            if batch and (count > self.size or count * self._longest(unit) > _MOST_FRAMES):
                batches.append(batch)
                batch = []
            batch = batch + unit
        return [*batches, batch] if batch else batches

    def _longest(self, unit: list[Utterance]) -> int:
        return max(map(self.length, unit))


def _turn(utterance: Utterance) -> int:
    return 0 if utterance.turn is None else utterance.turn  # a stable sort keeps the corpus's order
