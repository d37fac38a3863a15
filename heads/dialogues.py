"""Whole dialogues in a batch, for heads that read the utterances of one in their order."""

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import require


class Dialogues(NamedTuple):
    """Which utterances of a batch are of one dialogue; they stand together, in the order of turns.

    Attributes:
        number: (B,) int64, the same for the utterances of a dialogue and for no others.
        size: (B,) int64, how many utterances the dialogue of each has. It is given and not counted,
            so that a dialogue that was cut at the edge of a batch is noticed.
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
            HeadError: shapes or dtypes are others, or a dialogue is cut or scattered.
        """
        for name, x in zip(self._fields, self, strict=True):
            fits = x.dim() == 1 and x.dtype == torch.int64 and len(x) == len(self.number) > 0
            require(fits, f"{name} of dialogues must be int64 (B,), not {tuple(x.shape)}")
        runs, counts = torch.unique_consecutive(self.number, return_counts=True)
        require(len(runs.unique()) == len(runs), "the utterances of a dialogue must stand together")
        wrong = (self.size != counts.repeat_interleave(counts)).nonzero().flatten().tolist()
        if wrong:
            at = wrong[0]
            here = int((self.number == self.number[at]).sum())
            message = f"a dialogue of {int(self.size[at])} utterances is cut: {here} of it are here"
            require(False, f"{message}; give whole dialogues")
        lengths: Tensor = counts
        return lengths
