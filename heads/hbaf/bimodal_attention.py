"""Dynamic bimodal attention and the dynamic gate of HBAF.

The abstract (arXiv 2503.06405) names both and gives their purpose: to filter wrong cross-modal
relations, and to use intra- and inter-modal interactions with residuals. The equations are an
INTERPRETATION.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..modules.attention import attend


class BimodalAttention(nn.Module):
    """Self-attention plus cross-attention with a signed (tanh) gate.

    For modalities m ≠ n, with x_m the sequence of m, Q_m, K_m and V_m linear in x_m without bias,
    and Attention(Q, K, V) = softmax(Q Kᵀ / √d) V:

        A_m  = Attention(Q_m, K_m, V_m)                   intra
        C_mn = Attention(Q_m, K_n, V_n)                   inter
        λ_mn = tanh(w_m · [A_m ; C_mn])                   in (-1, 1), one per position
        h_m  = A_m + Σ_n λ_mn ⊙ C_mn                      Σ_n over all modalities n ≠ m

    A negative λ subtracts C_mn; a gate in (0, 1) could only weaken it (related: BCAF, arXiv
    2503.05858, softmax(intra) - Φ · softmax(cross)). With one modality h_m = A_m.

    Args:
        modalities: names of the modalities.
        width: d, the width of the sequences.
    """

    def __init__(self, modalities: Iterable[str], width: int) -> None:
        super().__init__()
        names = list(modalities)
        # One w_m for all n; with one modality there is no cross-attention.
        gated = names if len(names) > 1 else []
        self.projections = nn.ModuleDict(
            {m: nn.Linear(width, 3 * width, bias=False) for m in names}
        )
        self.signs = nn.ModuleDict({m: nn.Linear(2 * width, 1, bias=False) for m in gated})

    def forward(self, x: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return h_m for each modality.

        Args:
            x: modality → (G, N, d) floating, finite in the padding too.
            masks: modality → (G, N) bool, True where the position has the modality. Only these
                positions are attended to; if a modality has none, its A or C is zero.

        Returns:
            modality → (G, N, d); finite but meaningless at a position without the modality.
        """
        qkv = {m: self.projections[m](z).chunk(3, dim=2) for m, z in x.items()}
        h = {}
        for m, (query, key, value) in qkv.items():
            intra = _attend(query, key, value, masks[m])
            h[m] = intra
            for n, (_, other_key, other_value) in qkv.items():
                if n == m:
                    continue
                inter = _attend(query, other_key, other_value, masks[n])
                sign = torch.tanh(self.signs[m](torch.cat([intra, inter], dim=2)))
                h[m] = h[m] + sign * inter
        return h


class DynamicGate(nn.Module):
    """g = sigmoid(W [h ; x] + b), one value per channel; o = LN(x + g ⊙ h).

    Args:
        width: d, the width of x and h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Add ``h``, (G, N, d), to ``x``, (G, N, d), through the gate: o, (G, N, d)."""
        gate = torch.sigmoid(self.gate(torch.cat([h, x], dim=2)))
        gated: Tensor = self.norm(x + gate * h)
        return gated


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with one head, (G, N, d) each; zeros for a dialogue without a valid key."""
    attended = attend(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), mask).squeeze(1)
    return torch.where(mask.any(dim=1)[:, None, None], attended, 0.0)
