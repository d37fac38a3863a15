"""Random modality masking: in training, hide a modality so that the head learns without it."""

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor, nn

from ..errors import require


class ModalityMasking(nn.Module):
    """Hide one modality of an utterance at random, in training only; never the only modality.

    The idea comes from emotion queries (Wang, Ma, Ding, ICASSP 2023), where it reduces modality
    bias. The rates are an interpretation: with ``rate`` 0.4 and two modalities, both are kept with
    probability 0.6, and each is hidden with probability 0.2.

    Args:
        rate: probability that a modality of an utterance is hidden, in [0, 1]. All modalities are
            equally likely to be chosen.

    Raises:
        HeadError: the rate is out of its range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        fits = isfinite(rate) and 0 <= rate <= 1
        require(fits, f"the rate of modality masking must be in [0, 1], not {rate}")
        self.rate = rate

    def forward(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks, modality → (B, T_m) bool; all False for a hidden modality."""
        if not self.training or self.rate == 0 or len(masks) == 1:
            return dict(masks)
        present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # (M, B)
        n_modalities, n_batch = present.shape
        drawn = torch.rand(n_batch, device=present.device) < self.rate
        chosen = torch.randint(n_modalities, (n_batch,), device=present.device)
        hide = drawn & (present.sum(dim=0) > 1)
        return {
            m: mask & ~(hide & (chosen == i)).unsqueeze(1)
            for i, (m, mask) in enumerate(masks.items())
        }
