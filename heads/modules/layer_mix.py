"""Combine the cached layers of an encoder into one sequence: a learned mix, or one layer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import HeadError, require, unknown

LayerChoice = str | int | tuple[int, ...]
"""``"mix"``, ``"last"``, a position among the cached layers (a negative position counts from the
last layer), or several positions, which are mixed."""

LayerChoices = LayerChoice | Mapping[str, LayerChoice]
"""One choice of layers for all modalities, or one choice for each modality."""


class LayerMix(nn.Module):
    """Read one cached layer, or a learned softmax-weighted sum of several layers.

    The sum is that of SUPERB (Yang et al., Interspeech 2021): Σ_l softmax(w)_l · x_l, with one
    weight for each layer. All weights are equal at the start and are trained with the head.

    Args:
        n_layers: number of cached layers of the encoder.
        layer: ``"mix"`` for all layers, ``"last"``, one position or several positions. A position
            is an index among the cached layers, in 0 .. n_layers - 1, and not the encoder's layer
            number: the cache may hold only some layers. A negative position counts from the last.

    Attributes:
        positions: the positions of the layers that are read, in the order that ``forward`` expects.

    Raises:
        HeadError: the name is unknown, or a position is out of range or given twice.
    """

    positions: tuple[int, ...]

    def __init__(self, n_layers: int, layer: LayerChoice = "mix") -> None:
        super().__init__()
        if layer == "mix":
            self.positions = tuple(range(n_layers))
        elif layer == "last":
            self.positions = (n_layers - 1,)
        elif isinstance(layer, str):
            raise unknown("layer", layer, ("mix", "last", "or an integer"))
        else:
            given = layer if isinstance(layer, list | tuple) else (layer,)
            self.positions = tuple(_position(position, n_layers) for position in given)
            distinct = len(set(self.positions)) == len(self.positions) > 0
            require(
                distinct, f"layer must name at least one layer, and no layer twice, not {layer!r}"
            )
        several = len(self.positions) > 1  # the softmax over one weight is 1
        self.weights = nn.Parameter(torch.zeros(len(self.positions))) if several else None

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, L, T, D), the layers at ``positions``, to (B, T, D) of the same dtype."""
        if self.weights is None:
            return x[:, 0]
        return torch.einsum("l,bltd->btd", self.weights.softmax(dim=0), x)


class LayerMixes(nn.Module):
    """A :class:`LayerMix` for each modality.

    Args:
        n_layers: modality → number of cached layers.
        layer: one choice for all modalities, or modality → choice. A modality without a choice
            uses ``default``; if ``layer`` is None, all modalities do.
        default: modality → choice; ``"mix"`` for a modality without a default.

    Attributes:
        positions: modality → the positions of the cached layers that are read; a head returns them
            as ``layers``.

    Raises:
        HeadError: a layer or a modality does not exist.
    """

    def __init__(
        self,
        n_layers: Mapping[str, int],
        layer: LayerChoices | None = None,
        default: Mapping[str, LayerChoice] | None = None,
    ) -> None:
        super().__init__()
        chosen: dict[str, LayerChoice] = dict.fromkeys(n_layers, "mix")
        chosen |= {m: choice for m, choice in (default or {}).items() if m in n_layers}
        if isinstance(layer, Mapping):
            for name, choice in layer.items():
                if name not in n_layers:
                    raise unknown("modality in layer", name, n_layers)
                chosen[name] = choice
        elif layer is not None:
            chosen = dict.fromkeys(n_layers, layer)
        mixes = {m: LayerMix(n, chosen[m]) for m, n in n_layers.items()}
        self.positions = {m: mix.positions for m, mix in mixes.items()}
        self.mixes = nn.ModuleDict(mixes)

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality → (B, L_m, T_m, D_m) to modality → (B, T_m, D_m)."""
        return {m: self.mixes[m](x) for m, x in hidden.items()}


def _position(layer: object, n_layers: int) -> int:
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise HeadError(f"layer must be 'mix', 'last', or one or more integers, not {layer!r}")
    positions = f"a position among the cached layers is in {-n_layers} .. {n_layers - 1}"
    message = f"layer {layer} is out of range: {positions}"
    require(-n_layers <= layer < n_layers, message)
    return layer % n_layers
