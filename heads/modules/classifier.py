"""The classifier at the end of most heads."""

from torch import nn


def classifier(width: int, n_classes: int) -> nn.Module:
    """LayerNorm → Linear, (B, W) → (B, C).

    The LayerNorm removes the norm of the input, so that a larger vector does not give a more
    confident prediction.
    """
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_classes))
