"""Pre-LN transformer pieces: attention with a key mask, and the blocks that are made of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import require

FEED_FORWARD_RATIO = 4


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017) with a key mask.

    Args:
        width: W, of queries, memory and output.
        n_heads: must divide W.
        project: False to return the attention heads side by side, without the output layer.

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int, *, project: bool = True) -> None:
        super().__init__()
        divides = n_heads >= 1 and width % n_heads == 0
        require(divides, f"width {width} cannot be divided among {n_heads} attention heads")
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out: nn.Module = nn.Linear(width, width) if project else nn.Identity()

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Let every row of ``x`` attend to the valid rows of ``memory``.

        Args:
            x: (B, Q, W) floating queries.
            memory: (B, T, W) floating keys and values, finite in the padding too.
            mask: (B, T) bool, True where a row of ``memory`` is valid.

        Returns:
            (B, Q, W); zeros for an utterance without any valid row, which has nothing to say.
        """
        key, value = self.key_value(memory).chunk(2, dim=2)
        attended = attend(self._split(self.query(x)), self._split(key), self._split(value), mask)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return torch.where(mask.any(dim=1)[:, None, None], out, 0.0)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, W) → (B, heads, T, W / heads)."""
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) V over the valid keys (Vaswani et al., 2017, eq. 1).

    Args:
        query: (B, H, Q, d) floating, H attention heads.
        key: (B, H, T, d) floating, finite in the padding too.
        value: (B, H, T, d) floating, finite in the padding too.
        mask: (B, T) bool, True where a key is valid.

    Returns:
        (B, H, Q, d); where no key is valid, finite and without a meaning.
    """
    # A softmax over nothing is NaN: who has nothing to attend to sees the padding.
    seen = mask | ~mask.any(dim=1, keepdim=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None, :])


class AttentionStep(nn.Module):
    """x + dropout(Attention(LN(x), LN(memory))): attention as a residual branch.

    Args:
        width: W.
        n_heads: attention heads; must divide W.
        dropout: of the residual branch, in [0, 1), and of nothing inside it: on a CPU the fused
            attention takes no dropout.
        foreign: the memory comes from elsewhere and has a LayerNorm of its own; otherwise it
            shares that of ``x``.

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int, dropout: float, *, foreign: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(width) if foreign else None
        self.attention = Attention(width, n_heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B, Q, W) → (B, Q, W), by attention to itself or to ``memory`` (B, T, W).

        ``mask`` is (B, T) bool, the valid rows of the memory; T = Q where there is none.
        """
        query = self.norm(x)
        if memory is None:
            context = query
        else:
            context = (self.norm if self.memory_norm is None else self.memory_norm)(memory)
        updated: Tensor = x + self.dropout(self.attention(query, context, mask))
        return updated


class FeedForwardStep(nn.Module):
    """x + dropout(FFN(LN(x))); the FFN is Linear → GELU → Linear, ratio 4.

    Args:
        width: W.
        dropout: of the residual branch: drawing masks four times as wide inside it would cost as
            much as the layer they would drop.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, FEED_FORWARD_RATIO * width),
            nn.GELU(),
            nn.Linear(FEED_FORWARD_RATIO * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) → (B, T, W), each position by itself."""
        updated: Tensor = x + self.dropout(self.layers(self.norm(x)))
        return updated


class PreNormBlock(nn.Module):
    """An attention step, then a feed-forward step.

    Normalising before each part (Xiong et al., 2020) trains without warm-up. There is no
    positional encoding: an encoder's hidden states already carry their positions.

    Args:
        width: W.
        n_heads: attention heads; must divide W.
        dropout: of both residual branches, in [0, 1).

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = AttentionStep(width, n_heads, dropout)
        self.feed_forward = FeedForwardStep(width, dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """Update ``x`` by attention to itself, or to ``memory`` where it is given.

        Where ``x`` is a part of the rows of ``memory``, the result is exactly those rows of the
        full self-attention block, at the cost of those rows only.

        Args:
            x: (B, Q, W) floating.
            mask: (B, T) bool, the valid rows of ``memory`` (or of ``x``, T = Q).
            memory: (B, T, W) floating, not normalised, finite in the padding too.

        Returns:
            (B, Q, W); in the padding, finite values without a meaning.
        """
        updated: Tensor = self.feed_forward(self.attend(x, mask, memory))
        return updated
