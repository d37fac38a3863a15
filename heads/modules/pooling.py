"""Pooling of a sequence to one vector: mean, mean and standard deviation, or attention.

Each pooling ignores the padding, whatever values it holds, and returns zeros for an utterance
without a valid position.
"""

import torch
from torch import Tensor, nn


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid positions in time.

    The padding is replaced by zero, not multiplied by zero, because 0 · NaN is NaN.

    Args:
        x: (B, T, D) floating; the padding may hold any values, also NaN.
        mask: (B, T) bool, True at a valid position.

    Returns:
        (B, D) of the dtype of ``x``; zeros for an utterance without a valid position.
    """
    total = torch.where(mask.unsqueeze(2), x, 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_mean_std(x: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean and standard deviation over the valid positions (x-vectors: Snyder et al., 2018).

    [mean_t x_t ; sqrt(mean_t (x_t - mean)² + eps)]. The mean is subtracted before squaring, so that
    a large mean costs no precision. Without ``eps`` the gradient of the root would be infinite for
    equal positions, for example in an utterance of one frame.

    Args:
        x: (B, T, D) floating; the padding may hold any values, also NaN.
        mask: (B, T) bool, True at a valid position.
        eps: added to the variance, > 0.

    Returns:
        (B, 2 · D) of the dtype of ``x``; zeros for an utterance without a valid position.
    """
    x = torch.where(mask.unsqueeze(2), x, 0.0)  # a NaN would reach the gradients
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean.unsqueeze(1)).square(), mask)
    pooled = torch.cat([mean, (variance + eps).sqrt()], dim=1)
    return torch.where(mask.any(dim=1, keepdim=True), pooled, 0.0)


class AttentionPooling(nn.Module):
    """Weighted mean over time; one layer of additive attention gives the weights [interpretation].

    Σ_t softmax_t(v · tanh(W x_t + b)) · x_t over the valid t (Yang et al., NAACL 2016).

    Args:
        width: D, the width of the sequence.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = nn.Sequential(
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 1, bias=False),  # the softmax cancels a bias
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool (B, T, D), with a (B, T) bool mask of the valid positions, to (B, D).

        The padding may hold any values; an utterance without a valid position gives zeros.
        """
        x = torch.where(mask.unsqueeze(2), x, 0.0)
        scores = self.scores(x)
        # The lowest finite number, not -inf: a softmax over only -inf is NaN.
        scores = scores.masked_fill(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
        pooled: Tensor = (scores.softmax(dim=1) * x).sum(dim=1)
        return pooled
