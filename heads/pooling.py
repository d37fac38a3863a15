"""From a sequence to one vector."""

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid positions in time.

    The padding is replaced and not multiplied by zero, because 0 · NaN is NaN.

    Args:
        x: (B, T, D) floating; the padding may hold anything, NaN included.
        mask: (B, T) bool, True where a position is valid.

    Returns:
        (B, D) of the dtype of ``x``; zeros for an utterance without any valid position.
    """
    total = torch.where(mask.unsqueeze(2), x, 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
