"""From an encoder's hidden states to a head's width."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Stem(nn.Module):
    """LayerNorm → Linear → GELU → dropout, one mask an utterance [interpretation].

    The LayerNorm comes first because the scale of hidden states differs by an order of magnitude
    between encoders and between the layers of one encoder.

    The dropout mask is drawn once an utterance and shared by all its positions (as in Gal &
    Ghahramani, 2016): masks drawn for each position would average out in the pooling, and the two
    dropout views of a long utterance, the positive pair of a contrastive loss, would be the same.

    Args:
        dim: D, the width of the hidden states.
        width: W, that of the head.
        dropout: probability of dropping a channel, in [0, 1).
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, W), each position by itself."""
        x = F.gelu(self.linear(self.norm(x)))
        keep = F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout, self.training)
        return x * keep


class StageStems(nn.Module):
    """One modality's stems, one for each stage: the part of a head that no other modality enters.

    Args:
        dim: D, the width of the hidden states.
        width: W, that of the head.
        dropout: see :class:`Stem`.
        reads: for each stage, which of the L layers of the batch it reads.
    """

    def __init__(self, dim: int, width: int, dropout: float, reads: Sequence[int]) -> None:
        super().__init__()
        self.reads = tuple(reads)
        self.stems = nn.ModuleList(Stem(dim, width, dropout) for _ in reads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, L, T, D) → for each stage (B, T, W)."""
        return [stem(x[:, i]) for stem, i in zip(self.stems, self.reads, strict=True)]
