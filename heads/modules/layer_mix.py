"""Combine the cached layers of an encoder: a learned mix, all next to each other, or one layer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import HeadError, require, unknown

LayerChoice = str | int | tuple[int, ...]
"""``"mix"``, ``"concat"``, ``"last"``, a position among the cached layers (a negative position
counts from the last layer), or several positions, which are mixed."""

LayerChoices = LayerChoice | Mapping[str, LayerChoice]
"""One choice of layers for all modalities, or one choice for each modality."""


class LayerMix(nn.Module):
    """Read one cached layer, a learned softmax-weighted sum of several layers, or all side by side.

    The sum is that of SUPERB (Yang et al., Interspeech 2021): Σ_l softmax(w)_l · x_l, with one
    weight for each layer. All weights are equal at the start and are trained with the head. A
    concatenation gives the head all layers of a frame as one vector, (T, L · D).

    Args:
        n_layers: number of cached layers of the encoder.
        layer: ``"mix"`` or ``"concat"`` of all layers, ``"last"``, one position or several
            positions. A position is an index among the cached layers, in 0 .. n_layers - 1, and not
            the encoder's layer number: the cache may hold only some layers. A negative position
            counts from the last.

    Attributes:
        positions: the positions of the layers that are read, in the order that ``forward`` expects.
        n_joined: how many layers a frame of the result holds side by side; 1 unless concatenated.

    Raises:
        HeadError: the name is unknown, or a position is out of range or given twice.
    """

    positions: tuple[int, ...]

    def __init__(self, n_layers: int, layer: LayerChoice = "mix") -> None:
        super().__init__()
        if layer in ("mix", "concat"):
            self.positions = tuple(range(n_layers))
        elif layer == "last":
            self.positions = (n_layers - 1,)
        elif isinstance(layer, str):
            raise unknown("layer", layer, ("mix", "concat", "last", "or an integer"))
        else:
            given = layer if isinstance(layer, list | tuple) else (layer,)
            self.positions = tuple(_position(position, n_layers) for position in given)
            distinct = len(set(self.positions)) == len(self.positions) > 0
            require(
                distinct, f"layer must name at least one layer, and no layer twice, not {layer!r}"
            )
        self.n_joined = len(self.positions) if layer == "concat" else 1
        several = len(self.positions) > self.n_joined  # the softmax over one weight is 1
        self.weights = nn.Parameter(torch.zeros(len(self.positions))) if several else None

    def forward(self, x: Tensor) -> Tensor:
        """Combine (B, L, T, D), the layers at ``positions``, to (B, T, ``n_joined`` · D)."""
        if self.weights is None:
            return x.transpose(1, 2).flatten(2) if self.n_joined > 1 else x[:, 0]
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
        n_joined: modality → see :class:`LayerMix`.

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
        self.n_joined = {m: mix.n_joined for m, mix in mixes.items()}
        self.mixes = nn.ModuleDict(mixes)

    def weights(self) -> dict[str, Tensor]:
        """Return the learned weights of the layers, for the modalities that mix several layers."""
        weights = {m: mix.weights for m, mix in self.mixes.items()}
        return {m: value for m, value in weights.items() if isinstance(value, Tensor)}

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality → (B, L_m, T_m, D_m) to modality → (B, T_m, ``n_joined[m]`` · D_m)."""
        return {m: self.mixes[m](x) for m, x in hidden.items()}


def _position(layer: object, n_layers: int) -> int:
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise HeadError(
            f"layer must be 'mix', 'concat', 'last', or one or more integers, not {layer!r}"
        )
    positions = f"a position among the cached layers is in {-n_layers} .. {n_layers - 1}"
    message = f"layer {layer} is out of range: {positions}"
    require(-n_layers <= layer < n_layers, message)
    return layer % n_layers
