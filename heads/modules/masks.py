"""From lengths to masks: True where a frame or a token is real, False in the padding."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Mark the valid positions of padded sequences.

    Args:
        lengths: (B,) int64, valid positions per utterance, counted from the start.
        size: T, the padded length in positions.

    Returns:
        (B, T) bool, True at positions t < length.
    """
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
