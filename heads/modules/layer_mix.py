"""From the cached layers of an encoder to one sequence: a learned mix, the last layer or one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import HeadError, require, unknown

LayerChoice = str | int | tuple[int, ...]
"""``"mix"``, ``"last"``, a position among the cached layers (negative: from the last), or several
positions, which are mixed."""

LayerChoices = LayerChoice | Mapping[str, LayerChoice]
"""One choice of layers for all modalities, or one for each."""


class LayerMix(nn.Module):
    """Read one cached layer, or the learned softmax-weighted sum of all or of some of them.

    The sum is that of SUPERB (Yang et al., Interspeech 2021): Σ_l softmax(w)_l · x_l, one weight a
    layer, all equal at the start, trained with the head.

    Args:
        n_layers: cached layers of the encoder.
        layer: ``"mix"``, ``"last"``, or positions in 0 .. n_layers - 1; negative positions count
            from the last. Positions are those in the cache, which may hold a part of the layers.

    Attributes:
        positions: the cached layers that it reads, in the order in which ``forward`` wants them.

    Raises:
        HeadError: an unknown name, or a position out of range or given twice.
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
            self.positions = tuple(_position(one, n_layers) for one in given)
            distinct = len(set(self.positions)) == len(self.positions) > 0
            require(distinct, f"layers {layer!r}: give one or more different layers")
        several = len(self.positions) > 1  # of one layer there is nothing to choose
        self.weights = nn.Parameter(torch.zeros(len(self.positions))) if several else None

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, L, T, D), the layers at ``positions``, to (B, T, D) of the same dtype."""
        if self.weights is None:
            return x[:, 0]
        return torch.einsum("l,bltd->btd", self.weights.softmax(dim=0), x)


class LayerMixes(nn.Module):
    """A :class:`LayerMix` for each modality.

    Args:
        n_layers: modality → cached layers.
        layer: for all modalities, or modality → its own; those that are not named, and all where
            it is None, take ``default``.
        default: modality → layer; ``"mix"`` for those that are not named.

    Attributes:
        positions: modality → the cached layers that it reads; what a head has as ``layers``.

    Raises:
        HeadError: a layer that is not there, or one for a modality that is not there.
    """

    def __init__(
        self,
        n_layers: Mapping[str, int],
        layer: LayerChoices | None = None,
        default: Mapping[str, LayerChoice] | None = None,
    ) -> None:
        super().__init__()
        chosen: dict[str, LayerChoice] = dict.fromkeys(n_layers, "mix")
        chosen |= {m: one for m, one in (default or {}).items() if m in n_layers}
        if isinstance(layer, Mapping):
            for name, one in layer.items():
                if name not in n_layers:
                    raise unknown("modality in layer", name, n_layers)
                chosen[name] = one
        elif layer is not None:
            chosen = dict.fromkeys(n_layers, layer)
        mixes = {m: LayerMix(n, chosen[m]) for m, n in n_layers.items()}
        self.positions = {m: mix.positions for m, mix in mixes.items()}
        self.mixes = nn.ModuleDict(mixes)

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mix modality → (B, L_m, T_m, D_m) to modality → (B, T_m, D_m)."""
        return {m: self.mixes[m](x) for m, x in hidden.items()}


def _position(layer: object, n_layers: int) -> int:
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise HeadError(f"layer must be 'mix', 'last', an integer or several, not {layer!r}")
    message = f"layer {layer} is out of range: only {n_layers} are cached, numbered from 0"
    require(-n_layers <= layer < n_layers, message)
    return layer % n_layers
