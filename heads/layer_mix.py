"""From the cached layers of an encoder to one sequence: a learned mix, the last layer or one."""

import torch
from torch import Tensor, nn

from .errors import HeadError, require, unknown

Layer = str | int
"""``"mix"``, ``"last"``, or a position among the cached layers (negative: from the last)."""


class LayerMix(nn.Module):
    """Read one cached layer, or the learned softmax-weighted sum of all of them.

    The sum is that of SUPERB (Yang et al., Interspeech 2021): Σ_l softmax(w)_l · x_l, one weight a
    layer, all equal at the start, trained with the head.

    Args:
        n_layers: cached layers of the encoder.
        layer: ``"mix"``, ``"last"``, or a position in 0 .. n_layers - 1; negative positions count
            from the last. Positions are those in the cache, which may hold a part of the layers.

    Attributes:
        positions: the cached layers that it reads, in the order in which ``forward`` wants them.

    Raises:
        HeadError: an unknown name or a position out of range.
    """

    positions: tuple[int, ...]

    def __init__(self, n_layers: int, layer: Layer = "mix") -> None:
        super().__init__()
        self.weights: nn.Parameter | None = None
        if layer == "mix":
            self.positions = tuple(range(n_layers))
            self.weights = nn.Parameter(torch.zeros(n_layers))
        elif layer == "last":
            self.positions = (n_layers - 1,)
        elif isinstance(layer, int) and not isinstance(layer, bool):
            message = f"layer {layer} is out of range: only {n_layers} are cached, numbered from 0"
            require(-n_layers <= layer < n_layers, message)
            self.positions = (layer % n_layers,)
        elif isinstance(layer, str):
            raise unknown("layer", layer, ("mix", "last", "or an integer"))
        else:
            raise HeadError(f"layer must be 'mix', 'last' or an integer, not {layer!r}")

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, L, T, D), the layers at ``positions``, to (B, T, D) of the same dtype."""
        if self.weights is None:
            return x[:, 0]
        return torch.einsum("l,bltd->btd", self.weights.softmax(dim=0), x)
