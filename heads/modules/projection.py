"""From an encoder's hidden states to a head's width."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layer_mix import LayerChoice, LayerChoices, LayerMixes


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
        return channel_dropout(F.gelu(self.linear(self.norm(x))), self.dropout, self.training)


def channel_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Drop channels of (B, T, W), the same ones at all positions of an utterance."""
    return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), rate, training)


class Projections(nn.Module):
    """What stands before most heads: layer mix → LayerNorm → Linear → dropout, per modality.

    The LayerNorm and the dropout are those of :class:`Stem` [interpretation].

    Args:
        dims: modality → D_m, the width of its hidden states.
        n_layers: modality → cached layers.
        width: W, that of the head.
        dropout: probability of dropping a channel, in [0, 1).
        layer: see :class:`LayerMixes`.
        default: see :class:`LayerMixes`.

    Attributes:
        positions: modality → the cached layers that it reads; what a head has as ``layers``.

    Raises:
        HeadError: a layer that is not there.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_layers: Mapping[str, int],
        width: int,
        dropout: float,
        layer: LayerChoices | None = None,
        default: Mapping[str, LayerChoice] | None = None,
    ) -> None:
        super().__init__()
        self.mixes = LayerMixes(n_layers, layer, default)
        self.positions = self.mixes.positions
        self.norms = nn.ModuleDict({m: nn.LayerNorm(dim) for m, dim in dims.items()})
        self.linears = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in dims.items()})
        self.dropout = dropout

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality → (B, L_m, T_m, D_m) hidden states to modality → (B, T_m, W)."""
        return {
            m: channel_dropout(self.linears[m](self.norms[m](x)), self.dropout, self.training)
            for m, x in self.mixes(hidden).items()
        }


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
