"""A classifier for each modality, and the loss of these classifiers."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..modules.classifier import classifier


class UnimodalClassifiers(nn.ModuleDict):
    """A :func:`classifier` for each modality.

    Args:
        modalities: names of the modalities.
        width: W, the width of the input of each classifier.
        n_classes: C.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, n_classes: int) -> None:
        super().__init__({m: classifier(width, n_classes) for m in modalities})

    def forward(self, pooled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality → (B, W) to modality → (B, C) logits."""
        return {m: self[m](x) for m, x in pooled.items()}


def uni_modal(
    logits: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Mean over the modalities of the loss of their own classifiers [interpretation].

    Args:
        logits: modality → (B, C) floating; at least one modality.
        present: modality → (B,) bool, the utterances that have it; only they are in the loss.
        labels: (B,) int64 classes, or the targets of another objective, (B, K).
        loss: :meth:`Head.target_loss`.

    Returns:
        Scalar, the mean over the modalities that at least one utterance has; 0 without such a
        modality.
    """
    losses = [
        loss(x[present[m]], labels[present[m]])
        for m, x in logits.items()
        if present[m].any()  # the mean over no utterance would be NaN
    ]
    if not losses:
        return next(iter(logits.values())).new_zeros(())
    return torch.stack(losses).mean()
