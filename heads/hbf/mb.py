"""MB: modalities learn in turns, the weakest first; distil from the more confident modality.

The abstract of HBF describes that MB lets "the learning of different modalities perform alternating
interchangeability". Everything here is an INTERPRETATION, after MLA (Zhang et al., CVPR 2024: turns
with the other modalities fixed) and ReconBoost (Hua et al., ICML 2024: in its turn, a modality is
also trained towards the others). Every modality m has its own classifier p_m.

In the turn of m, the outputs of all other modalities are fixed, and the loss has the term

    agreement_m = mean over i and n ≠ m of [e_n,i < e_m,i] · D(sg(x_n) ‖ x_m),

where sg is stop_gradient, e the error of an utterance and D the divergence of two outputs: for
classes -log p(y_i), so that the bracket compares the confidence in the true class, and KL(p_n ‖
p_m); :mod:`..objectives` has those of the other targets. The mean is over all pairs (i, n) where
utterance i has both m and n, including the pairs with a bracket of 0. Only p_m receives a gradient.

The order of the turns: c_m ← ρ·c_m + (1 - ρ)·mean_i exp(-e_m,i) in each turn of m in training
(without turns, in each training step); exp(-e) is p_m(y_i) for classes. The modality with the
smallest c_m has the first turn. ρ = 0.9; the start value of c_m is chance, 1/C.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..objectives import Objective

MOMENTUM = 0.9
"""ρ, of the moving average of the confidence."""


def agreement(
    modality: str,
    logits: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    labels: Tensor,
    objective: Objective,
) -> Tensor:
    """Return the agreement term for the turn of one modality; see the module docstring.

    Args:
        modality: m, the modality that has the turn.
        logits: modality → (B, C) floating, from the classifier of each modality.
        present: modality → (B,) bool, the utterances that have the modality.
        labels: (B,) int64 classes, or the targets of the objective.
        objective: gives the errors and the divergence.

    Returns:
        Scalar, ≥ 0, float32 or wider; 0 if no utterance has m and another modality.
    """
    error = {m: objective.errors(x.detach(), labels) for m, x in logits.items()}
    total = error[modality].new_zeros(())
    count = total.long()
    for name, other in logits.items():
        if name == modality:
            continue
        both = present[name] & present[modality]
        better = error[name] < error[modality]
        divergence = objective.divergence(logits[modality], other.detach())
        total = total + torch.where(both & better, divergence, 0.0).sum()
        count = count + both.sum()
    return total / count.clamp(min=1)


class TurnOrder(nn.Module):
    """The order of the turns, by a moving average of each modality's confidence in what is known.

    Args:
        modalities: names of the modalities.
        n_classes: C.

    Attributes:
        confidence: (M,) floating buffer, c_m; saved with the head, so that a resumed training keeps
            the order.
    """

    confidence: Tensor

    def __init__(self, modalities: tuple[str, ...], n_classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.register_buffer("confidence", torch.full((len(modalities),), 1 / n_classes))

    def order(self) -> tuple[str, ...]:
        """Return the modalities, the weakest first; ties keep the order of the head."""
        confidence = dict(zip(self.modalities, self.confidence.tolist(), strict=True))
        return tuple(sorted(self.modalities, key=confidence.__getitem__))

    @torch.no_grad()
    def update(self, modality: str, errors: Tensor, present: Tensor) -> None:
        """Update c_m with one batch; c_m does not change if no utterance has the modality.

        c_m also does not change if the errors are not finite, as in a step that loss scaling skips:
        otherwise one such batch would fix the order for the rest of the training.

        Args:
            modality: m.
            errors: (B,) floating, the errors of the outputs of the classifier of m.
            present: (B,) bool, the utterances that have m.
        """
        errors = torch.where(present, errors, 0.0)
        known = torch.where(present, (-errors).exp(), 0.0)
        mean = known.sum() / present.sum().clamp(min=1)
        index = self.modalities.index(modality)
        old = self.confidence[index]
        new = MOMENTUM * old + (1 - MOMENTUM) * mean
        self.confidence[index] = torch.where(present.any() & errors.isfinite().all(), new, old)
