"""Which utterances of a batch belong to one dialogue, for heads that read whole dialogues."""

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import HeadError, require


class Dialogues(NamedTuple):
    """The dialogues of a batch: their utterances are adjacent and in the order of the turns.

    Attributes:
        number: (B,) int64, the same number for all utterances of a dialogue, and a different number
            for each dialogue.
        size: (B,) int64, how many utterances the dialogue of each utterance has. The caller gives
            the size, so that a dialogue that is cut at the edge of a batch is detected.
    """

    number: Tensor
    size: Tensor

    @classmethod
    def alone(cls, n_batch: int) -> "Dialogues":
        """Return B dialogues of one utterance each."""
        return cls(torch.arange(n_batch), torch.ones(n_batch, dtype=torch.int64))

    def lengths(self) -> Tensor:
        """Return (dialogues,) int64, the utterances of each dialogue in the order of the batch.

        Raises:
            HeadError: a shape or dtype is wrong, or a dialogue is cut or its utterances are not
                adjacent.
        """
        for name, x in zip(self._fields, self, strict=True):
            fits = x.dim() == 1 and x.dtype == torch.int64 and len(x) == len(self.number) > 0
            require(fits, f"{name} of dialogues must be int64 (B,), not {tuple(x.shape)}")
        runs, counts = torch.unique_consecutive(self.number, return_counts=True)
        require(len(runs.unique()) == len(runs), "the utterances of a dialogue must be adjacent")
        wrong = (self.size != counts.repeat_interleave(counts)).nonzero().flatten().tolist()
        if wrong:
            first = wrong[0]
            present = int((self.number == self.number[first]).sum())
            raise HeadError(
                f"a dialogue of {int(self.size[first])} utterances is cut: the batch has {present} "
                "of them; give whole dialogues"
            )
        lengths: Tensor = counts
        return lengths
