"""From a sequence to one vector: the mean, the mean beside the deviation, or a learned weighting.

Each takes the padding out by its mask, whatever it holds, and gives zeros for an utterance without
any valid position.
"""

import torch
from torch import Tensor, nn


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid positions in time.

    The padding is replaced and not multiplied by zero, because 0 · NaN is NaN.

    Args:
        x: (B, T, D) floating; the padding may hold anything, NaN included.
        mask: (B, T) bool, True where a position is valid.

    Returns:
        (B, D) of the dtype of ``x``; zeros for an utterance without any valid position.
    """
    total = torch.where(mask.unsqueeze(2), x, 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_mean_std(x: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean and standard deviation over the valid positions (x-vectors: Snyder et al., 2018).

    [mean_t x_t ; sqrt(mean_t (x_t - mean)² + eps)], by two passes, which lose no digits where the
    mean is large. Without ``eps`` the gradient of the root would be infinite where all positions
    are equal, as they are in an utterance of one frame.

    Args:
        x: (B, T, D) floating; the padding may hold anything, NaN included.
        mask: (B, T) bool, True where a position is valid.
        eps: added to the variance, > 0.

    Returns:
        (B, 2 · D) of the dtype of ``x``; zeros for an utterance without any valid position.
    """
    x = torch.where(mask.unsqueeze(2), x, 0.0)  # else a NaN in it would reach the gradients
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean.unsqueeze(1)).square(), mask)
    both = torch.cat([mean, (variance + eps).sqrt()], dim=1)
    return torch.where(mask.any(dim=1, keepdim=True), both, 0.0)


class AttentionPooling(nn.Module):
    """Weighted mean over time, the weights by one layer of additive attention [interpretation].

    Σ_t softmax_t(v · tanh(W x_t + b)) · x_t over the valid t (Yang et al., NAACL 2016).

    Args:
        width: D, of the positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 1, bias=False),  # a bias would cancel in the softmax
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool (B, T, D), with a (B, T) bool mask of the valid positions, to (B, D).

        The padding may hold anything; an utterance without any valid position gives zeros.
        """
        x = torch.where(mask.unsqueeze(2), x, 0.0)
        scores = self.scores(x)
        # The lowest number and not -inf: a softmax over nothing but -inf is NaN.
        scores = scores.masked_fill(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
        pooled: Tensor = (scores.softmax(dim=1) * x).sum(dim=1)
        return pooled
