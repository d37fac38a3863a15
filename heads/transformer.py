"""One pre-LN transformer block, for self-attention and for attention to a longer memory."""

import torch.nn.functional as F
from torch import Tensor, nn

from .errors import require

FEED_FORWARD_RATIO = 4


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017) with a key mask.

    Args:
        width: W, of queries, memory and output.
        n_heads: must divide W.

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        divides = n_heads >= 1 and width % n_heads == 0
        require(divides, f"width {width} cannot be divided among {n_heads} attention heads")
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Let every row of ``x`` attend to the valid rows of ``memory``.

        Args:
            x: (B, Q, W) floating queries.
            memory: (B, T, W) floating keys and values, finite in the padding too.
            mask: (B, T) bool, True where a row of ``memory`` is valid; at least one an utterance.

        Returns:
            (B, Q, W).
        """
        key, value = self.key_value(memory).chunk(2, dim=2)
        attended = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(key),
            self._split(value),
            attn_mask=mask[:, None, None, :],
        )
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, W) → (B, heads, T, W / heads)."""
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class PreNormBlock(nn.Module):
    """x + Attention(LN(x)), then x + FFN(LN(x)); the FFN is Linear → GELU → Linear, ratio 4.

    Normalising before each part (Xiong et al., 2020) trains without warm-up. There is no
    positional encoding: an encoder's hidden states already carry their positions.

    Args:
        width: W.
        n_heads: attention heads; must divide W.
        dropout: of both residual branches, in [0, 1), and of nothing inside them: on a CPU the
            fused attention takes no dropout, and drawing masks four times as wide costs as much as
            the layer they would drop.

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, FEED_FORWARD_RATIO * width),
            nn.GELU(),
            nn.Linear(FEED_FORWARD_RATIO * width, width),
        )
        self.dropout = nn.Dropout(dropout)

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
        query = self.attention_norm(x)
        context = query if memory is None else self.attention_norm(memory)
        x = x + self.dropout(self.attention(query, context, mask))
        updated: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return updated
