"""Pre-LN transformer layers: attention with a key mask, feed-forward, and their block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import require

FEED_FORWARD_RATIO = 4


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017) with a key mask.

    Args:
        width: W, the width of queries, memory and output.
        n_heads: number of attention heads; must divide W.
        project: False to return the concatenated attention heads without the output layer.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
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
        """Attend from every row of ``x`` to the valid rows of ``memory``.

        Args:
            x: (B, Q, W) floating queries.
            memory: (B, T, W) floating keys and values, finite in the padding too.
            mask: (B, T) bool, True where a row of ``memory`` is valid.

        Returns:
            (B, Q, W); zeros for an utterance whose memory has no valid row.
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
        query: (B, H, Q, d) floating; H is the number of attention heads.
        key: (B, H, T, d) floating, finite in the padding too.
        value: (B, H, T, d) floating, finite in the padding too.
        mask: (B, T) bool, True where a key is valid.

    Returns:
        (B, H, Q, d); finite but meaningless for an utterance without a valid key.
    """
    # A softmax over no keys is NaN: an utterance without a valid key attends to its padding.
    visible = mask | ~mask.any(dim=1, keepdim=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None, :])


class AttentionStep(nn.Module):
    """x + dropout(Attention(LN(x), LN(memory))): attention as a residual branch.

    Args:
        width: W.
        n_heads: number of attention heads; must divide W.
        dropout: rate at the end of the residual branch, in [0, 1). The attention weights have no
            dropout: the fused attention on a CPU does not support it.
        foreign: True if the memory comes from another module and gets its own LayerNorm; otherwise
            it shares the LayerNorm of ``x``.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(self, width: int, n_heads: int, dropout: float, *, foreign: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(width) if foreign else None
        self.attention = Attention(width, n_heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B, Q, W) → (B, Q, W), by attention to itself or to ``memory`` (B, T, W).

        ``mask`` is (B, T) bool, the valid rows of the memory; without a memory, those of ``x``.
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
        dropout: rate at the end of the residual branch, in [0, 1). The inner layer has no dropout:
            its mask would be four times as wide and would cost as much as the layer itself.
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
        """(B, T, W) → (B, T, W), each position separately."""
        updated: Tensor = x + self.dropout(self.layers(self.norm(x)))
        return updated


class PreNormBlock(nn.Module):
    """An attention step, then a feed-forward step.

    Normalisation before each step (Xiong et al., 2020) makes warm-up unnecessary. There is no
    positional encoding: the hidden states of an encoder already contain their positions.

    Args:
        width: W.
        n_heads: number of attention heads; must divide W.
        dropout: rate of both residual branches, in [0, 1).

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = AttentionStep(width, n_heads, dropout)
        self.feed_forward = FeedForwardStep(width, dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """Update ``x`` by attention to itself, or to ``memory`` if it is given.

        If ``x`` is a part of the rows of ``memory``, the result equals these rows of the full
        self-attention block, and only these rows are computed.

        Args:
            x: (B, Q, W) floating.
            mask: (B, T) bool, the valid rows of ``memory`` (or of ``x``, T = Q).
            memory: (B, T, W) floating, not normalised, finite in the padding too.

        Returns:
            (B, Q, W); finite but meaningless in the padding.
        """
        updated: Tensor = self.feed_forward(self.attend(x, mask, memory))
        return updated
