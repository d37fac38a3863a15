"""Dynamic bimodal attention and the dynamic gate of HBAF.

The abstract (arXiv 2503.06405) names both and says what they are for: to filter wrong cross-modal
relations, and to use intra- and inter-modal interactions with residuals. The equations are an
INTERPRETATION.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..modules.attention import attend


class BimodalAttention(nn.Module):
    """Each modality attends to itself and to the others, and weighs with a sign what it hears.

    For modalities m ≠ n and x_m a sequence, with Q_m, K_m, V_m linear in x_m without bias, and
    Attention(Q, K, V) = softmax(Q Kᵀ / √d) V:

        A_m  = Attention(Q_m, K_m, V_m)                   intra
        C_mn = Attention(Q_m, K_n, V_n)                   inter
        λ_mn = tanh(w_m · [A_m ; C_mn])                   in (-1, 1), one a position
        h_m  = A_m + Σ_n λ_mn ⊙ C_mn                      Σ_n: with three modalities

    Since λ may be negative, it can suppress what the other modality says and not only fade it out
    (related: BCAF, arXiv 2503.05858, softmax(intra) - Φ · softmax(cross)). With one modality
    h_m = A_m.

    Args:
        modalities: their names.
        width: d, of the sequences.
    """

    def __init__(self, modalities: Iterable[str], width: int) -> None:
        super().__init__()
        names = list(modalities)
        # One w_m for all that m listens to; alone, it listens to none.
        listening = names if len(names) > 1 else []
        self.projections = nn.ModuleDict(
            {m: nn.Linear(width, 3 * width, bias=False) for m in names}
        )
        self.signs = nn.ModuleDict({m: nn.Linear(2 * width, 1, bias=False) for m in listening})

    def forward(self, x: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return h_m for each modality.

        Args:
            x: modality → (G, N, d) floating, finite in the padding too.
            masks: modality → (G, N) bool, True where the position has the modality. No others are
                attended to; where a modality has none, its A or C is zero.

        Returns:
            modality → (G, N, d); where a position lacks the modality, finite and without a meaning.
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
    """g = sigmoid(W [h ; x] + b) for each channel; o = LN(x + g ⊙ h).

    Args:
        width: d, of x and h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Let (G, N, d) ``h`` into (G, N, d) ``x``: o, (G, N, d)."""
        gate = torch.sigmoid(self.gate(torch.cat([h, x], dim=2)))
        gated: Tensor = self.norm(x + gate * h)
        return gated


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with one head, (G, N, d) each; zeros where no key is valid."""
    heard = attend(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), mask).squeeze(1)
    return torch.where(mask.any(dim=1)[:, None, None], heard, 0.0)
