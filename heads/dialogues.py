"""Which utterances of a batch belong to one dialogue, for heads that read whole dialogues."""

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import HeadError, require

UNKNOWN = -1
"""The number of a speaker who is not known."""


class Dialogues(NamedTuple):
    """The dialogues of a batch: their utterances are adjacent and in the order of the turns.

    Attributes:
        number: (B,) int64, the same number for all utterances of a dialogue, and a different number
            for each dialogue.
        size: (B,) int64, how many utterances the dialogue of each utterance has. The caller gives
            the size, so that a dialogue that is cut at the edge of a batch is detected.
        speaker: (B,) int64, the same number for all utterances of a speaker in a dialogue, and
            :data:`UNKNOWN` for an utterance whose speaker is not known. None if no speaker is
            known. The numbers only say which utterances have the same speaker.
        context: (B,) bool, True for a turn that is only context: the head reads the turn, and the
            turn has no label, no loss and no prediction. None if there is no such turn.
    """

    number: Tensor
    size: Tensor
    speaker: Tensor | None = None
    context: Tensor | None = None

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
            if x is not None:
                dtype = torch.bool if name == "context" else torch.int64
                fits = x.dim() == 1 and x.dtype == dtype and len(x) == len(self.number) > 0
                kind = str(dtype).removeprefix("torch.")
                found = f"{tuple(x.shape)} of {x.dtype}"
                require(fits, f"{name} of dialogues must be {kind} (B,), not {found}")
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

    def by_speaker(self) -> tuple[Tensor, Tensor]:
        """Sort the utterances by dialogue and speaker, in the order of the turns.

        An utterance whose speaker is not known is the only utterance of its speaker.

        Returns:
            (B,) int64, the places of the utterances in the batch, and (speakers,) int64, the number
            of utterances of each speaker in each dialogue, in the same order.
        """
        places = torch.arange(len(self.number), device=self.number.device)
        speaker = torch.full_like(places, UNKNOWN) if self.speaker is None else self.speaker
        own = torch.where(speaker == UNKNOWN, speaker.max() + 1 + places, speaker)
        pairs = torch.stack([self.number, own])
        _, of_speaker = torch.unique(pairs, dim=1, return_inverse=True)
        return of_speaker.argsort(stable=True), of_speaker.bincount()

    def labelled(self) -> Tensor:
        """Return (utterances,) int64, the places of the utterances that are not only context."""
        if self.context is None:
            return torch.arange(len(self.number), device=self.number.device)
        return (~self.context).nonzero().flatten()
