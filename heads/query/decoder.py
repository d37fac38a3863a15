"""Emotion queries: learned tokens that read all modalities, in a transformer decoder."""

import torch
from torch import Tensor, nn

from ..modules.attention import AttentionStep, FeedForwardStep


class QueryLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the memory, then a feed-forward step.

    Each step is a pre-LN residual branch [interpretation].

    Args:
        width: W, the width of queries and memory.
        n_heads: number of attention heads; must divide W.
        dropout: rate of the residual branches, in [0, 1).

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.among_queries = AttentionStep(width, n_heads, dropout)
        self.to_memory = AttentionStep(width, n_heads, dropout, foreign=True)
        self.feed_forward = FeedForwardStep(width, dropout)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Update (B, Q, W) queries by the rows of (B, T, W) memory that the (B, T) mask marks."""
        all_queries = mask.new_ones(queries.shape[:2])
        queries = self.among_queries(queries, all_queries)
        queries = self.to_memory(queries, mask, memory)
        updated: Tensor = self.feed_forward(queries)
        return updated


class EmotionQueries(nn.Module):
    """Learned query tokens that pass through layers of :class:`QueryLayer` with one memory.

    From the paper (Wang, Ma, Ding, ICASSP 2023): such tokens collect emotion information by
    cross-attention in a decoder. The sizes, the order of the steps and the initialisation (std
    0.02) are an interpretation.

    Args:
        n_queries: Q, the number of query tokens.
        width: W, the width of queries and memory.
        n_heads: number of attention heads; must divide W.
        n_layers: number of decoder layers.
        dropout: rate of the residual branches, in [0, 1).

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(
        self, n_queries: int, width: int, n_heads: int, n_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(n_queries, width))
        self.layers = nn.ModuleList(QueryLayer(width, n_heads, dropout) for _ in range(n_layers))

    def forward(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Return the queries after they have read a memory.

        Args:
            memory: (B, T, W) floating, not normalised, finite in the padding too.
            mask: (B, T) bool, True at a valid row of ``memory``.

        Returns:
            (B, Q, W).
        """
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory, mask)
        return queries
