"""The contrastive losses of HBF: within a modality, and between modalities.

The abstract of HBF describes intra- and inter-modal contrastive learning as "self-supervised
calibration" of modality-specific and cross-modal feature distributions. The choice of the pairs is
an INTERPRETATION. An utterance that lacks a modality is in no pair of this modality.
"""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..modules.contrastive import info_nce, supervised_contrastive


def intra_modal(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    temperature: float,
    labels: Tensor | None = None,
) -> Tensor:
    """Contrast two dropout views of each modality: InfoNCE, or SupCon if labels are given.

    Args:
        first: modality → (B, D) floating, the first views.
        second: modality → (B, D) floating, the second views of the same utterances, for at least
            the modalities of ``first``.
        present: modality → (B,) bool, the utterances that have it.
        temperature: τ > 0.
        labels: (B,) int64 classes, or None.

    Returns:
        Scalar, the mean over the modalities of ``first``.
    """
    if labels is None:
        pairs = [info_nce(first[m], second[m], temperature, present[m]) for m in first]
    else:
        pairs = [
            supervised_contrastive(first[m], second[m], labels, temperature, present[m])
            for m in first
        ]
    return torch.stack(pairs).mean()


def inter_modal(
    views: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    temperature: float,
    turn: str | None = None,
) -> Tensor:
    """Contrast each pair of modalities by InfoNCE; the positives are views of one utterance.

    Args:
        views: modality → (B, D) floating; at least two modalities.
        present: modality → (B,) bool, the utterances that have it.
        temperature: τ > 0.
        turn: use only the pairs with this modality; None for all pairs m < n.

    Returns:
        Scalar, the mean over the pairs.
    """
    pairs = [pair for pair in combinations(views, 2) if turn is None or turn in pair]
    losses = [info_nce(views[a], views[b], temperature, present[a] & present[b]) for a, b in pairs]
    return torch.stack(losses).mean()
