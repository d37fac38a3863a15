"""Standardise hidden states by statistics of the training part."""

import torch
from torch import Tensor, nn

FLOOR = 1e-4
"""The smallest deviation, relative to the root mean square of a dimension."""


class Standardisation(nn.Module):
    """(x - mean) / deviation for each layer and dimension, with statistics that are given.

    The statistics are buffers, so they are saved with the head. Until :meth:`fit` is called they
    change nothing: the mean is 0 and the deviation 1.

    Args:
        n_layers: L, the layers of a batch.
        dim: D, the width of a layer.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_layers: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_layers, dim))
        self.register_buffer("deviation", torch.ones(n_layers, dim))

    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the statistics of the training part.

        Args:
            mean: (L, D) floating.
            deviation: (L, D) floating, the standard deviation, ≥ 0; see :func:`floored`.
        """
        self.mean.copy_(mean)
        self.deviation.copy_(floored(mean, deviation))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, …, D) floating to the same shape and dtype."""
        shape = (len(self.mean), *(1 for _ in range(x.dim() - 3)), self.mean.shape[1])
        mean, deviation = self.mean.view(shape), self.deviation.view(shape)
        # In place: these are as large as all features of a batch.
        return (x - mean).div_(deviation).to(x.dtype)


def floored(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return deviations to divide by, of the same shape, above 0.

    A dimension that hardly varies gets the deviation ``FLOOR`` times its root mean square: else a
    small change would become a huge input. Such a dimension is only rounding noise, as the features
    are stored in float16. A dimension of zeros gets 1.
    """
    floor = FLOOR * (mean.square() + deviation.square()).sqrt()
    result = torch.maximum(deviation, floor)
    return torch.where(result > 0, result, 1.0)


def frame_statistics(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of frames; each utterance weighs the same.

    The variance is that within utterances plus that between their means (law of total variance).
    So a clip of five minutes does not decide how short clips are standardised.

    Args:
        pooled: (N, L, 2 · D) floating: for each utterance the mean over its frames, then the
            standard deviation.

    Returns:
        (L, D) and (L, D) float64.
    """
    means, deviations = pooled.double().chunk(2, dim=2)
    mean = means.mean(dim=0)
    within, between = deviations.square().mean(dim=0), (means - mean).square().mean(dim=0)
    return mean, (within + between).sqrt()


def pooled_statistics(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of pooled vectors over the utterances.

    Args:
        pooled: (N, L, W) floating.

    Returns:
        (L, W) and (L, W) float64.
    """
    exact = pooled.double()
    return exact.mean(dim=0), exact.std(dim=0, correction=0)
