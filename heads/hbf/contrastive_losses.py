"""The contrastive losses of HBF: within a modality, and between modalities.

The abstract of HBF describes intra- and inter-modal contrastive learning as "self-supervised
calibration" of modality-specific and cross-modal feature distributions. The choice of the pairs is
an INTERPRETATION. An utterance that lacks a modality is in no pair of this modality. Two utterances
with identical input in a modality are no negatives of each other in its pairs, see
:mod:`..modules.false_negatives`.
"""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..modules.contrastive import info_nce, supervised_contrastive
from ..modules.false_negatives import NO_REPEATS, Repeats, in_either


def intra_modal(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    temperature: float,
    labels: Tensor | None = None,
    repeated: Repeats = NO_REPEATS,
) -> Tensor:
    """Contrast two dropout views of each modality: InfoNCE, or SupCon if labels are given.

    Args:
        first: modality → (B, D) floating, the first views.
        second: modality → (B, D) floating, the second views of the same utterances, for at least
            the modalities of ``first``.
        present: modality → (B,) bool, the utterances that have it.
        temperature: τ > 0.
        labels: (B,) int64 classes, or None.
        repeated: modality → (B, B) bool, the false negatives; empty if there are none.

    Returns:
        Scalar, the mean over the modalities of ``first``.
    """

    def contrast(m: str) -> Tensor:
        same = in_either(repeated, [m])
        if labels is None:
            return info_nce(first[m], second[m], temperature, present[m], same)
        return supervised_contrastive(first[m], second[m], labels, temperature, present[m], same)

    return torch.stack([contrast(m) for m in first]).mean()


def inter_modal(
    views: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    temperature: float,
    turn: str | None = None,
    repeated: Repeats = NO_REPEATS,
) -> Tensor:
    """Contrast each pair of modalities by InfoNCE; the positives are views of one utterance.

    Args:
        views: modality → (B, D) floating; at least two modalities.
        present: modality → (B,) bool, the utterances that have it.
        temperature: τ > 0.
        turn: use only the pairs with this modality; None for all pairs m < n.
        repeated: modality → (B, B) bool, the false negatives; empty if there are none.

    Returns:
        Scalar, the mean over the pairs.
    """

    def contrast(m: str, n: str) -> Tensor:
        both, same = present[m] & present[n], in_either(repeated, [m, n])
        return info_nce(views[m], views[n], temperature, both, same)

    pairs = [pair for pair in combinations(views, 2) if turn is None or turn in pair]
    return torch.stack([contrast(m, n) for m, n in pairs]).mean()
