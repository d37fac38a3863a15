"""MB: modalities that learn in turns, the weak one first, and listen to the one that knows better.

The abstract of HBF says that MB lets "the learning of different modalities perform alternating
interchangeability"; everything here is an INTERPRETATION, after MLA (Zhang et al., CVPR 2024: turns
with the other modalities fixed) and ReconBoost (Hua et al., ICML 2024: in its turn a modality is
drawn towards the others). Every modality m has a classifier of its own, p_m.

In the turn of m, the outputs of all others are fixed, and the loss has the term

    agreement_m = mean over i and n ≠ m of [p_n(y_i) > p_m(y_i)] · KL(sg(p_n) ‖ p_m),

sg being stop_gradient and the mean over the pairs (i, n) of an utterance that has both modalities
and another modality, also those for which the bracket is 0. The gradient goes into p_m, and into
p_m alone.

The order: c_m ← ρ·c_m + (1 - ρ)·mean_i p_m(y_i) in each turn of m in training (without turns, in
each training step), and the modality of the least c_m comes first. ρ = 0.9; c_m begins at chance,
1/C.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.9


def agreement(
    modality: str, logits: Mapping[str, Tensor], present: Mapping[str, Tensor], labels: Tensor
) -> Tensor:
    """The agreement term of one modality's turn; the module's docstring has the equation.

    Args:
        modality: m, whose turn it is.
        logits: modality → (B, C) floating, of each modality's own classifier.
        present: modality → (B,) bool, the utterances that have the modality.
        labels: (B,) int64 classes.

    Returns:
        Scalar, ≥ 0, float32 at least; 0 where no utterance has another modality too.
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
        surer = teacher[rows, labels] > learner.detach()[rows, labels]
        divergence = F.kl_div(learner, teacher, reduction="none", log_target=True).sum(dim=1)
        total = total + torch.where(both & surer, divergence, 0.0).sum()
        count = count + both.sum()
    return total / count.clamp(min=1)


class TurnOrder(nn.Module):
    """Whose turn it is first: a moving average of each modality's confidence in the true class.

    Args:
        modalities: their names.
        n_classes: C.

    Attributes:
        confidence: (M,) floating buffer, c_m; saved with the head, so that a training that goes on
            keeps its order.
    """

    confidence: Tensor

    def __init__(self, modalities: tuple[str, ...], n_classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.register_buffer("confidence", torch.full((len(modalities),), 1 / n_classes))

    def order(self) -> tuple[str, ...]:
        """Return the modalities, the weakest first; equal ones in the order of the head."""
        confidence = dict(zip(self.modalities, self.confidence.tolist(), strict=True))
        return tuple(sorted(self.modalities, key=confidence.__getitem__))

    @torch.no_grad()
    def update(self, modality: str, logits: Tensor, present: Tensor, labels: Tensor) -> None:
        """Let c_m follow one batch; it stays where no utterance has the modality.

        It stays too where the logits are not finite, as in a step that loss scaling skips: one such
        batch would otherwise decide the order for ever.

        Args:
            modality: m.
            logits: (B, C) floating, of its own classifier.
            present: (B,) bool, the utterances that have it.
            labels: (B,) int64 classes.
        """
        rows = torch.arange(len(labels), device=labels.device)
        p_y = _log_probabilities(logits)[rows, labels].exp()
        mean = torch.where(present, p_y, 0.0).sum() / present.sum().clamp(min=1)
        at = self.modalities.index(modality)
        old = self.confidence[at]
        followed = MOMENTUM * old + (1 - MOMENTUM) * mean
        self.confidence[at] = torch.where(present.any() & mean.isfinite(), followed, old)


def _log_probabilities(logits: Tensor) -> Tensor:
    """(B, C) of logits to logarithms of probabilities, float32 at least, also under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
