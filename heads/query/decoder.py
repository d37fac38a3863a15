"""A few learned query tokens that gather emotion from all modalities, as a transformer decoder."""

import torch
from torch import Tensor, nn

from ..modules.attention import AttentionStep, FeedForwardStep


class QueryLayer(nn.Module):
    """Queries attend to each other, then to the memory, then each goes through a feed-forward net.

    Each step is pre-LN with a residual [interpretation].

    Args:
        width: W, of queries and memory.
        n_heads: attention heads; must divide W.
        dropout: of the residual branches, in [0, 1).

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.among_queries = AttentionStep(width, n_heads, dropout)
        self.to_memory = AttentionStep(width, n_heads, dropout, foreign=True)
        self.feed_forward = FeedForwardStep(width, dropout)

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Update (B, Q, W) queries by (B, T, W) memory, of which the (B, T) bool mask is valid."""
        all_queries = mask.new_ones(queries.shape[:2])
        queries = self.among_queries(queries, all_queries)
        queries = self.to_memory(queries, mask, memory)
        updated: Tensor = self.feed_forward(queries)
        return updated


class EmotionQueries(nn.Module):
    """Learned query tokens, through layers of :class:`QueryLayer` over one memory.

    That such tokens gather emotion by cross-attention in a decoder is from the paper (Wang, Ma,
    Ding, ICASSP 2023); sizes, order of steps and start (std 0.02) are an interpretation.

    Args:
        n_queries: Q.
        width: W, of queries and memory.
        n_heads: attention heads; must divide W.
        n_layers: decoder layers.
        dropout: of the residual branches, in [0, 1).

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(
        self, n_queries: int, width: int, n_heads: int, n_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(n_queries, width))
        self.layers = nn.ModuleList(QueryLayer(width, n_heads, dropout) for _ in range(n_layers))

    def forward(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Gather from a memory.

        Args:
            memory: (B, T, W) floating, not normalised, finite in the padding too.
            mask: (B, T) bool, True where a row of ``memory`` may be read.

        Returns:
            (B, Q, W).
        """
        queries = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory, mask)
        return queries
