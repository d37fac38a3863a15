"""Masks of padded sequences: True at a frame or token, False in the padding."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return the mask of the valid positions.

    Args:
        lengths: (B,) int64, the number of valid positions of each utterance.
        size: T, the padded length in positions.

    Returns:
        (B, T) bool, True at positions t < length.
    """
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
