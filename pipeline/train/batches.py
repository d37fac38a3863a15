"""Which utterances go through a head together."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..corpora import Utterance

# Padded frames in one batch: thirteen layers 768 wide are then 0.3 GB in float16.
_MOST_FRAMES = 16_384
_GROUP = 20  # batches


def dialogue_of(utterance: Utterance) -> str:
    """Return its dialogue; an utterance that is of none is a dialogue of its own."""
    return utterance.id if utterance.dialogue is None else utterance.dialogue


class BatchSampler:
    """The utterances of a part of a fold, in batches.

    Batches are of like length, so that little is padded: shuffled, utterances are sorted by length
    only within groups of twenty batches, so that no two epochs have the same batches. Very long
    utterances come in smaller batches, so that a mis-cut clip of five minutes does not need the
    memory of thirty.

    Args:
        utterances: those of the part.
        size: the most utterances in a batch.
        length: the frames of an utterance's longest modality.
        by_dialogue: keep whole dialogues together, their utterances in the order of their turns; a
            dialogue of more than ``size`` utterances is a batch of its own.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        size: int,
        length: Callable[[Utterance], int],
        by_dialogue: bool = False,
    ) -> None:
        self.size, self.length = size, length
        if by_dialogue:
            of_dialogue: dict[str, list[Utterance]] = {}
            for one in utterances:
                of_dialogue.setdefault(dialogue_of(one), []).append(one)
            self.units = [sorted(units, key=_turn) for units in of_dialogue.values()]
        else:
            self.units = [[one] for one in utterances]
        self.dialogue_sizes = Counter(map(dialogue_of, utterances)) if by_dialogue else None

    def order(self, shuffle: torch.Generator | None = None) -> list[list[Utterance]]:
        """Return the batches, in random order if ``shuffle`` is given."""
        units = self.units
        if shuffle is not None:
            units = [units[at] for at in torch.randperm(len(units), generator=shuffle)]
        a_batch = max(1, self.size * len(units) // max(1, sum(map(len, units))))
        group = _GROUP * a_batch if shuffle is not None else max(1, len(units))
        batches: list[list[Utterance]] = []
        for start in range(0, len(units), group):
            batches += self._divided(sorted(units[start : start + group], key=self._longest))
        if shuffle is not None:
            batches = [batches[at] for at in torch.randperm(len(batches), generator=shuffle)]
        return batches

    def _divided(self, units: list[list[Utterance]]) -> list[list[Utterance]]:
        batches: list[list[Utterance]] = []
        batch: list[Utterance] = []
        for unit in units:
            # Sorted, so the newest is the longest, and the batch is padded to its length.
            count = len(batch) + len(unit)
            if batch and (count > self.size or count * self._longest(unit) > _MOST_FRAMES):
                batches.append(batch)
                batch = []
            batch = batch + unit
        return [*batches, batch] if batch else batches

    def _longest(self, unit: list[Utterance]) -> int:
        return max(map(self.length, unit))


def _turn(utterance: Utterance) -> int:
    return 0 if utterance.turn is None else utterance.turn  # the sort keeps the corpus's order
