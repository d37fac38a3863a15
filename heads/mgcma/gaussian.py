"""Utterances as Gaussians, and the loss that aligns the Gaussians of two modalities.

The distribution-based alignment of MGCMA (arXiv 2412.20821, ICASSP 2025), eqs. 1–8. The paper's
diagram of the constructor omits activations and normalisations; here they are those of MAP (Ji et
al., CVPR 2023), on which the paper builds [interpretation].

    Constructor (eqs. 1–3), for each position of one modality's sequence x:
        x' = LN(GELU(FC(x)));  A = [head_1, …, head_k] Wᵒ, self-attention on x' (eq. 3)
        μ = x + Linear(first half of A);       μ = μ + MLP(LN(μ))
        log σ = Linear(second half of A);  log σ = log σ + MLP(LN(log σ))
    Utterance [interpretation; MAP uses its class token, which speech does not have]:
        μ_i = mean_t μ_it,  σ_i = mean_t exp(log σ_it), over the valid positions; log σ is clamped
        to -10 .. 10
    W(N₁, N₂) = ‖μ₁ - μ₂‖² + ‖σ₁ - σ₂‖²   (eq. 4), the squared 2-Wasserstein distance of Gaussians
        with diagonal covariances
    Sim = -p·W + q                        (eq. 5)
    L_DA = symmetric InfoNCE of Sim / τ   (eqs. 6–8)

MAP has no Wᵒ: each branch reads one half of the attention heads. With Wᵒ both branches read all.

p is 0.005 at the width 768, and q is 4, as in MAP; both are fixed here [interpretation]. Squared
distances grow with the width, so p is scaled by 768 / width. q is the same for all pairs, so that
the softmax cancels it; only p / τ has an effect. q is kept so that Sim is the paper's similarity.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import require
from ..modules.attention import Attention, FeedForwardStep
from ..modules.contrastive import matching_loss
from ..modules.pooling import masked_mean
from ..modules.precision import wide

SHIFT = 4.0
"""q of eq. 5."""

LOG_DEVIATION = 10.0
"""The bound of |log σ| [interpretation]: σ in 5e-5 .. 2e4, whose squares fit into float32. The
projections normalise the features, so that σ is near 1 in training; the bound only stops a
divergence."""


class Gaussian(NamedTuple):
    """B Gaussians with diagonal covariances.

    Attributes:
        mean: (B, W) floating μ.
        deviation: (B, W) floating σ > 0, standard deviations.
    """

    mean: Tensor
    deviation: Tensor


class GaussianConstructor(nn.Module):
    """A sequence to a sequence of Gaussians (MGCMA eqs. 1–3; details as in MAP).

    Args:
        width: W, the width of the sequence; even.
        n_heads: number of attention heads; must divide W.
        dropout: rate of the two branches and their feed-forward steps, in [0, 1).
        output_projection: True for Wᵒ, a trainable Linear(W, W) with a bias (eq. 3); False for the
            form of MAP without it.

    Raises:
        HeadError: the width is odd, or ``n_heads`` does not divide it.
    """

    def __init__(
        self, width: int, n_heads: int, dropout: float, *, output_projection: bool = True
    ) -> None:
        super().__init__()
        message = f"width must be even (each of two branches gets half), not {width}"
        require(width % 2 == 0, message)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.attention = Attention(width, n_heads, project=output_projection)
        self.mean = nn.Linear(width // 2, width)
        self.log_deviation = nn.Linear(width // 2, width)
        self.dropout = nn.Dropout(dropout)
        self.mean_step = FeedForwardStep(width, dropout)
        self.log_deviation_step = FeedForwardStep(width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Gaussian at every position.

        Args:
            x: (B, T, W) floating, finite in the padding too.
            mask: (B, T) bool, True at a valid position.

        Returns:
            μ and log σ, each (B, T, W); finite but meaningless in the padding.
        """
        embedded = self.embed(x)
        first, second = self.attention(embedded, embedded, mask).chunk(2, dim=2)
        mean: Tensor = self.mean_step(x + self.dropout(self.mean(first)))
        log_deviation: Tensor = self.log_deviation_step(self.dropout(self.log_deviation(second)))
        return mean, log_deviation


def utterance_gaussian(mean: Tensor, log_deviation: Tensor, mask: Tensor) -> Gaussian:
    """Average the Gaussians over the positions of each utterance [interpretation].

    log σ is clamped to ±``LOG_DEVIATION``, so that exp(log σ) and its square are finite.

    Args:
        mean: (B, T, W) floating μ.
        log_deviation: (B, T, W) floating log σ.
        mask: (B, T) bool, True at a valid position.

    Returns:
        The Gaussians of the B utterances, float32 or wider; zeros without a valid position.
    """
    with torch.autocast(mean.device.type, enabled=False):
        deviation = wide(log_deviation).clamp(-LOG_DEVIATION, LOG_DEVIATION).exp()
        return Gaussian(masked_mean(wide(mean), mask), masked_mean(deviation, mask))


def wasserstein2(first: Gaussian, second: Gaussian) -> Tensor:
    """Squared 2-Wasserstein distances of all pairs (MGCMA eq. 4).

    W_ij = ‖μ_i - μ_j‖² + ‖σ_i - σ_j‖², computed from the differences: expanding the squares would
    lose precision for two Gaussians that are nearly equal. There is no square root, so that the
    gradient of equal Gaussians is finite (and 0).

    Args:
        first: A Gaussians of width W.
        second: B Gaussians of width W.

    Returns:
        (A, B) ≥ 0, float32 or wider; the computation needs memory for A · B · 2W numbers.
    """
    with torch.autocast(first.mean.device.type, enabled=False):
        a, b = wide(torch.cat(first, dim=1)), wide(torch.cat(second, dim=1))
        return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(dim=2)


def similarity(distance: Tensor, p: float, q: float = SHIFT) -> Tensor:
    """Sim = -p·W + q for distances of any shape (MGCMA eq. 5); p > 0."""
    return q - p * distance


def distribution_loss(
    first: Gaussian,
    second: Gaussian,
    temperature: float,
    p: float,
    present: Tensor | None = None,
    repeated: Tensor | None = None,
) -> Tensor:
    """L_DA, the symmetric InfoNCE with Sim / τ between two modalities (MGCMA eqs. 6–8).

    The mean over i of -½ log softmax_j(Sim_ij / τ)[i] - ½ log softmax_j(Sim_ji / τ)[i].

    Args:
        first: B Gaussians, the utterances in one modality.
        second: B Gaussians, the same utterances in the other modality.
        temperature: τ > 0.
        p: the factor p of eq. 5, positive.
        present: (B,) bool, the utterances that have both modalities; None for all.
        repeated: (B, B) bool, the pairs that are no negatives, see :func:`matching_loss`.

    Returns:
        Scalar, ≥ 0, float32 or wider; 0 for fewer than two utterances.
    """
    with torch.autocast(first.mean.device.type, enabled=False):
        logits = similarity(wasserstein2(first, second), p) / temperature
        return matching_loss(logits, present, repeated)
