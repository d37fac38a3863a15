"""A classifier for each modality by itself, so that a modality has a loss of its own."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..modules.classifier import classifier


class UnimodalClassifiers(nn.ModuleDict):
    """A :func:`classifier` for each modality.

    Args:
        modalities: their names.
        width: W, of what each classifier reads.
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
    cross_entropy: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Mean over modalities of the cross-entropy of each one's own classifier [interpretation].

    Args:
        logits: modality → (B, C) floating; at least one.
        present: modality → (B,) bool: the others are not in the loss.
        labels: (B,) int64 classes.
        cross_entropy: the head's own, which knows the weights of the classes.

    Returns:
        Scalar, the mean over the modalities that any utterance has; 0 where none has any.
    """
    losses = [
        cross_entropy(x[present[m]], labels[present[m]])
        for m, x in logits.items()
        if present[m].any()  # the mean over no utterance would be NaN
    ]
    if not losses:
        return next(iter(logits.values())).new_zeros(())
    return torch.stack(losses).mean()
