"""MB: modalities learn in turns, the weakest first; distil from the more confident modality.

The abstract of HBF describes that MB lets "the learning of different modalities perform alternating
interchangeability". Everything here is an INTERPRETATION, after MLA (Zhang et al., CVPR 2024: turns
with the other modalities fixed) and ReconBoost (Hua et al., ICML 2024: in its turn, a modality is
also trained towards the others). Every modality m has its own classifier p_m.

In the turn of m, the outputs of all other modalities are fixed, and the loss has the term

    agreement_m = mean over i and n ≠ m of [p_n(y_i) > p_m(y_i)] · KL(sg(p_n) ‖ p_m),

where sg is stop_gradient. The mean is over all pairs (i, n) where utterance i has both m and n,
including the pairs with a bracket of 0. Only p_m receives a gradient.

The order of the turns: c_m ← ρ·c_m + (1 - ρ)·mean_i p_m(y_i) in each turn of m in training (without
turns, in each training step). The modality with the smallest c_m has the first turn. ρ = 0.9; the
start value of c_m is chance, 1/C.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.9
"""ρ, of the moving average of the confidence."""


def agreement(
    modality: str, logits: Mapping[str, Tensor], present: Mapping[str, Tensor], labels: Tensor
) -> Tensor:
    """Return the agreement term for the turn of one modality; see the module docstring.

    Args:
        modality: m, the modality that has the turn.
        logits: modality → (B, C) floating, from the classifier of each modality.
        present: modality → (B,) bool, the utterances that have the modality.
        labels: (B,) int64 classes.

    Returns:
        Scalar, ≥ 0, float32 or wider; 0 if no utterance has m and another modality.
    """
    log_p = {m: _log_probabilities(x) for m, x in logits.items()}
    learner = log_p[modality]
    rows = torch.arange(len(labels), device=labels.device)
    total, count = learner.new_zeros(()), labels.new_zeros(())
    for name, other in log_p.items():
        if name == modality:
            continue
        teacher = other.detach()
        both = present[name] & present[modality]
        better = teacher[rows, labels] > learner.detach()[rows, labels]
        divergence = F.kl_div(learner, teacher, reduction="none", log_target=True).sum(dim=1)
        total = total + torch.where(both & better, divergence, 0.0).sum()
        count = count + both.sum()
    return total / count.clamp(min=1)


class TurnOrder(nn.Module):
    """The order of the turns, by a moving average of each modality's confidence in the true class.

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
    def update(self, modality: str, logits: Tensor, present: Tensor, labels: Tensor) -> None:
        """Update c_m with one batch; c_m does not change if no utterance has the modality.

        c_m also does not change if the logits are not finite, as in a step that loss scaling skips:
        otherwise one such batch would fix the order for the rest of the training.

        Args:
            modality: m.
            logits: (B, C) floating, from the classifier of m.
            present: (B,) bool, the utterances that have m.
            labels: (B,) int64 classes.
        """
        rows = torch.arange(len(labels), device=labels.device)
        p_y = _log_probabilities(logits)[rows, labels].exp()
        mean = torch.where(present, p_y, 0.0).sum() / present.sum().clamp(min=1)
        index = self.modalities.index(modality)
        old = self.confidence[index]
        new = MOMENTUM * old + (1 - MOMENTUM) * mean
        self.confidence[index] = torch.where(present.any() & mean.isfinite(), new, old)


def _log_probabilities(logits: Tensor) -> Tensor:
    """(B, C) logits to log-probabilities, float32 or wider, also under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
