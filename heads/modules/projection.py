"""Projections of an encoder's hidden states to the width of a head."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layer_mix import LayerChoice, LayerChoices, LayerMixes


class InputProjection(nn.Module):
    """LayerNorm → Linear → GELU → dropout, with one dropout mask per utterance [interpretation].

    The LayerNorm comes first because the scale of hidden states differs by an order of magnitude
    between encoders and between the layers of one encoder.

    All positions of an utterance share one dropout mask (as in Gal & Ghahramani, 2016). Separate
    masks for each position would average out in the pooling, and the two dropout views of a long
    utterance, the positive pair of a contrastive loss, would be almost equal.

    Args:
        dim: D, the width of the hidden states.
        width: W, the width of the head.
        dropout: probability of dropping a channel, in [0, 1).
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, W), each position separately."""
        return channel_dropout(F.gelu(self.linear(self.norm(x))), self.dropout, self.training)


def channel_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Drop channels of (B, T, W), the same channels at all positions of an utterance."""
    return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), rate, training)


class Projections(nn.Module):
    """The first part of most heads: layer mix → LayerNorm → Linear → dropout, per modality.

    For the LayerNorm and the dropout see :class:`InputProjection` [interpretation].

    Args:
        dims: modality → D_m, the width of its hidden states.
        n_layers: modality → number of cached layers.
        width: W, the width of the head.
        dropout: probability of dropping a channel, in [0, 1).
        layer: see :class:`LayerMixes`.
        default: see :class:`LayerMixes`.

    Attributes:
        positions: modality → the positions of the cached layers that are read; a head returns them
            as ``layers``.

    Raises:
        HeadError: the layer does not exist.
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
        widths = {m: self.mixes.n_joined[m] * dim for m, dim in dims.items()}
        self.norms = nn.ModuleDict({m: nn.LayerNorm(wide) for m, wide in widths.items()})
        self.linears = nn.ModuleDict({m: nn.Linear(wide, width) for m, wide in widths.items()})
        self.dropout = dropout

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality → (B, L_m, T_m, D_m) hidden states to modality → (B, T_m, W)."""
        return {
            m: channel_dropout(self.linears[m](self.norms[m](x)), self.dropout, self.training)
            for m, x in self.mixes(hidden).items()
        }


class StageProjections(nn.Module):
    """The input projections of one modality, one for each stage of a head.

    No other modality is an input of these layers.

    Args:
        dim: D, the width of the hidden states.
        width: W, the width of the head.
        dropout: see :class:`InputProjection`.
        reads: for each stage, the index of the layer that it reads among the L layers of a batch.
    """

    def __init__(self, dim: int, width: int, dropout: float, reads: Sequence[int]) -> None:
        super().__init__()
        self.reads = tuple(reads)
        # ``stems`` is part of the names of saved weights.
        self.stems = nn.ModuleList(InputProjection(dim, width, dropout) for _ in reads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, L, T, D) → for each stage (B, T, W)."""
        return [project(x[:, i]) for project, i in zip(self.stems, self.reads, strict=True)]
