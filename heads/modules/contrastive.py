"""Contrastive losses over a batch: symmetric InfoNCE, supervised contrast, distance of relations.

The representations are L2-normalised here, except by :func:`dot_info_nce`: dot products are
cosines, and the norm of a vector has no effect. The losses are computed in float32 or wider, also
under autocast: at a temperature of 0.07, the rounding of half precision would change the loss
visibly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import wide


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float,
    present: Tensor | None = None,
    repeated: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE: identify b_i from a_i among all b, and a_i from b_i among all a.

    With s_ij = cos(a_i, b_j) / τ, the mean over i of
    -½ [log softmax_j(s_ij)]_{j=i} - ½ [log softmax_j(s_ji)]_{j=i}
    (van den Oord et al., 2018; in both directions as in CLIP, Radford et al., 2021).
    For B = 1 there are no negatives: the loss and its gradient are 0.

    Args:
        a: (B, D) floating representations; row i belongs to row i of ``b``.
        b: (B, D) floating.
        temperature: τ > 0.
        present: (B,) bool, the utterances that have both representations. The others are neither
            pairs nor negatives. None for all.
        repeated: see :func:`matching_loss`.

    Returns:
        Scalar, ≥ 0.
    """
    return matching_loss(_cosines(a, b) / temperature, present, repeated)


def dot_info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float,
    present: Tensor | None = None,
    repeated: Tensor | None = None,
) -> Tensor:
    """:func:`info_nce` with dot products in place of cosines: s_ij = a_i · b_j / τ.

    The arguments and the result are those of :func:`info_nce`.
    """
    return matching_loss(_dots(a, b) / temperature, present, repeated)


def matching_loss(
    similarity: Tensor, present: Tensor | None = None, repeated: Tensor | None = None
) -> Tensor:
    """InfoNCE for any similarity: cross-entropy of the diagonal, over rows and over columns.

    With N(i) the utterances j ≠ i that are not repetitions of i, and P(i) = {i} ∪ N(i), the mean
    over i of -½ log [e^{s_ii} / Σ_{j ∈ P(i)} e^{s_ij}] - ½ log [e^{s_ii} / Σ_{j ∈ P(i)} e^{s_ji}].
    An utterance without a negative contributes 0.

    Args:
        similarity: (B, B) floating logits, already divided by the temperature; the diagonal holds
            the pairs.
        present: (B,) bool, the rows and columns to use; None for all.
        repeated: (B, B) bool, symmetric, True where j is a repetition of i and no negative, see
            :mod:`.false_negatives`; the diagonal must be False. None if all are negatives.

    Returns:
        Scalar, ≥ 0; 0 if no row is used.
    """
    if repeated is not None:
        similarity = similarity.masked_fill(repeated, float("-inf"))
    if present is not None:
        similarity = similarity[present][:, present]
    pairs = torch.arange(len(similarity), device=similarity.device)
    total = F.cross_entropy(similarity, pairs, reduction="sum")
    total = total + F.cross_entropy(similarity.T, pairs, reduction="sum")
    return total / (2 * max(len(similarity), 1))


def supervised_contrastive(
    a: Tensor,
    b: Tensor,
    labels: Tensor,
    temperature: float,
    present: Tensor | None = None,
    repeated: Tensor | None = None,
) -> Tensor:
    """SupCon over two views: every other view of the same class is a positive.

    With z the 2B normalised views, A(i) all views except i, and P(i) the views in A(i) of the class
    of i, the mean over i of
    -1/|P(i)| Σ_{p ∈ P(i)} log [exp(z_i·z_p/τ) / Σ_{a ∈ A(i)} exp(z_i·z_a/τ)]
    (Khosla et al., NeurIPS 2020, eq. 2, "L_out"). P(i) always contains the other view of i.

    A repetition of i of the same class is a positive; of another class, it is no negative, and A(i)
    does not contain its views [interpretation].

    Args:
        a: (B, D) floating, the first views.
        b: (B, D) floating, the second views of the same utterances.
        labels: (B,) int64 classes.
        temperature: τ > 0.
        present: (B,) bool, the utterances to use; None for all.
        repeated: (B, B) bool, the repetitions, as in :func:`matching_loss`.

    Returns:
        Scalar, ≥ 0; 0 if no utterance is used.
    """
    if repeated is None:
        repeated = torch.zeros(len(a), len(a), dtype=torch.bool, device=a.device)
    if present is not None:
        a, b, labels, repeated = (
            a[present],
            b[present],
            labels[present],
            repeated[present][:, present],
        )
    views, classes = torch.cat([a, b]), labels.repeat(2)
    similarity = _cosines(views, views) / temperature
    diagonal = torch.eye(len(views), dtype=torch.bool, device=views.device)
    alike = classes.unsqueeze(0) == classes.unsqueeze(1)
    left_out = diagonal | (repeated.repeat(2, 2) & ~alike)
    others = similarity.masked_fill(left_out, float("-inf"))
    log_p = similarity - others.logsumexp(dim=1, keepdim=True)
    positive = alike & ~diagonal
    mean_log_p = torch.where(positive, log_p, 0.0).sum(dim=1) / positive.sum(dim=1)
    return -mean_log_p.sum() / max(len(views), 1)


def relation_distance(a: Tensor, b: Tensor, present: Tensor | None = None) -> Tensor:
    """Distance between the similarity matrices of two modalities [interpretation].

    (1/B²) ‖S_aa - S_bb‖²_F, with S_aa and S_bb the (B, B) matrices of the cosines within each
    modality. It stands for the *relative* interactions of HBAF (arXiv 2503.06405), which the
    abstract names without an equation. For B = 1 both matrices are 1: the loss and its gradient
    are 0. There are no negatives here, so repeated utterances stay.

    Args:
        a: (B, D) floating representations; row i belongs to row i of ``b``.
        b: (B, E) floating; E may differ from D.
        present: (B,) bool, the utterances that have both representations; the others are left out,
            and B does not count them. None for all.

    Returns:
        Scalar in 0 .. 4.
    """
    if present is not None:
        a, b = a[present], b[present]
    difference = _cosines(a, a) - _cosines(b, b)
    return difference.square().sum() / max(len(a), 1) ** 2


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines between the rows of (A, D) and of (B, D): (A, B), float32 or wider."""
    return _dots(F.normalize(wide(a), dim=1), F.normalize(wide(b), dim=1))


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Dot products between the rows of (A, D) and of (B, D): (A, B), float32 or wider."""
    with torch.autocast(a.device.type, enabled=False):
        return wide(a) @ wide(b).T
