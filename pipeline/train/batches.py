"""Batches: which utterances a head processes together, and which batches make a step."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..corpora import Utterance

# Padded frames in one batch. With thirteen layers 768 wide, that is 0.3 GB in float16.
_MOST_FRAMES = 16_384
_FEWEST = 4  # utterances or dialogues in a batch of long ones: a contrastive loss needs negatives
_GROUP = 20  # steps


def dialogue_of(utterance: Utterance) -> str:
    """Return the dialogue of an utterance; without one, the utterance is its own dialogue."""
    return utterance.id if utterance.dialogue is None else utterance.dialogue


class BatchSampler:
    """Divides the utterances of a part of a fold into steps, and the steps into batches.

    The utterances of a step have similar lengths, so that there is little padding. When shuffled,
    utterances are sorted by length only within groups of twenty steps, so that each epoch has
    different steps. A step is one batch, unless its utterances are very long: then it has several
    smaller batches, because thirty clips of half a minute need too much memory at once. An
    utterance weighs the same in all batches of a step.

    Args:
        utterances: the utterances of the part that have a label.
        size: the largest number of utterances in a step.
        length: gives the frames of an utterance's longest modality.
        by_dialogue: keep each dialogue together, its utterances in the order of their turns. A
            dialogue of more than ``size`` utterances is a step by itself.
        context: turns of these dialogues that are only context; only with ``by_dialogue``.
        place: gives the place of an utterance in the corpus, the order of turns without a number.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        size: int,
        length: Callable[[Utterance], int],
        by_dialogue: bool = False,
        context: Sequence[Utterance] = (),
        place: Callable[[Utterance], int] = lambda utterance: 0,
    ) -> None:
        self.size, self.length = size, length
        self.context = frozenset(turn.id for turn in context)
        if by_dialogue:
            of_dialogue: dict[str, list[Utterance]] = {}
            for utterance in (*utterances, *context):
                of_dialogue.setdefault(dialogue_of(utterance), []).append(utterance)

            def in_order(utterance: Utterance) -> tuple[int, int]:
                return utterance.turn or 0, place(utterance)

            self.units = [sorted(units, key=in_order) for units in of_dialogue.values()]
        else:
            self.units = [[utterance] for utterance in utterances]
        sizes = Counter(map(dialogue_of, (*utterances, *context)))
        self.dialogue_sizes = sizes if by_dialogue else None

    def steps(self, shuffle: torch.Generator | None = None) -> list[list[list[Utterance]]]:
        """Return the batches of each step; ``shuffle`` puts the steps into random order."""
        units = self.units
        if shuffle is not None:
            units = [units[i] for i in torch.randperm(len(units), generator=shuffle)]
        units_in_step = max(1, self.size * len(units) // max(1, sum(map(len, units))))
        group = _GROUP * units_in_step if shuffle is not None else max(1, len(units))
        steps: list[list[list[Utterance]]] = []
        for start in range(0, len(units), group):
            some = sorted(units[start : start + group], key=self._longest)
            steps += [self._batches(step) for step in self._divided(some)]
        if shuffle is not None:
            steps = [steps[i] for i in torch.randperm(len(steps), generator=shuffle)]
        return steps

    def order(self) -> list[list[Utterance]]:
        """Return the batches of all steps, not shuffled."""
        return [batch for step in self.steps() for batch in step]

    def _divided(self, units: list[list[Utterance]]) -> list[list[list[Utterance]]]:
        """Divide units into steps of at most ``size`` utterances; a larger unit is alone."""
        steps: list[list[list[Utterance]]] = []
        count = self.size
        for unit in units:
            count += len(unit)
            if count > self.size:
                steps.append([])
                count = len(unit)
            steps[-1].append(unit)
        return steps

    def _batches(self, units: list[list[Utterance]]) -> list[list[Utterance]]:
        """Divide the units of a step, sorted by length, into batches that fit into memory."""
        batches: list[list[Utterance]] = []
        while units:
            longest, count, taken = self._longest(units[-1]), 0, 0
            for unit in reversed(units):
                count += len(unit)
                if taken >= _FEWEST and count * longest > _MOST_FRAMES:
                    break
                taken += 1
            rest = len(units) - taken
            if rest < _FEWEST:  # too few for a batch of their own; they are the shortest
                rest = 0
            batches.append([utterance for unit in units[rest:] for utterance in unit])
            units = units[:rest]
        return batches

    def _longest(self, unit: list[Utterance]) -> int:
        return max(map(self.length, unit))
