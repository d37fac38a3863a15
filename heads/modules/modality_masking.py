"""Random modality masking: in training, a head learns to do without one of its modalities."""

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor, nn

from ..errors import require


class ModalityMasking(nn.Module):
    """Hide one modality of an utterance at random, in training only, and never its last one.

    The idea is that of emotion queries (Wang, Ma, Ding, ICASSP 2023), where it counters modality
    bias; the rates are an interpretation: with ``rate`` 0.4 and two modalities, both are kept with
    probability 0.6 and each is hidden with 0.2.

    Args:
        rate: probability that an utterance loses a modality, in [0, 1]; which one, is drawn evenly.

    Raises:
        HeadError: a rate out of its range.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        fits = isfinite(rate) and 0 <= rate <= 1
        require(fits, f"the rate of modality masking must be in [0, 1], not {rate}")
        self.rate = rate

    def forward(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks, modality → (B, T_m) bool, those of a hidden modality all False."""
        if not self.training or self.rate == 0 or len(masks) == 1:
            return dict(masks)
        present = torch.stack([mask.any(dim=1) for mask in masks.values()])  # (M, B)
        n_modalities, n_batch = present.shape
        drawn = torch.rand(n_batch, device=present.device) < self.rate
        which = torch.randint(n_modalities, (n_batch,), device=present.device)
        hide = drawn & (present.sum(dim=0) > 1)
        return {
            m: mask & ~(hide & (which == at)).unsqueeze(1)
            for at, (m, mask) in enumerate(masks.items())
        }
