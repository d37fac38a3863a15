"""The three granularities of MGCMA (arXiv 2412.20821, ICASSP 2025) as interchangeable modules.

Each takes sequences and masks, and returns sequences of the same shapes and perhaps a loss, so
that any list of them, in any order, is a model (the paper's Tables II and III):

    distribution (DAM, eqs. 1–8): pulls an utterance's Gaussians together, see :mod:`.gaussian`;
        hands on the means μ [interpretation]
    token (TAM): self-attention in each modality and cross-attention between them; has no loss
    instance (IAM, eqs. 9–11): pulls an utterance's pooled sequences together, and hands the
        sequences on as they are

The paper has two modalities. With more, a loss is the mean over the pairs of modalities; with one,
there is none [interpretation].
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from ..modules.attention import AttentionStep, FeedForwardStep
from ..modules.contrastive import info_nce
from ..modules.pooling import masked_mean
from .gaussian import GaussianConstructor, distribution_loss, utterance_gaussian

Aligned = tuple[dict[str, Tensor], Tensor | None]
"""Modality → (B, T_m, W) sequences, and a scalar loss or None."""


class Alignment(nn.Module):
    """The one interface of the alignment modules."""

    __call__: Callable[..., Aligned]

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Align a batch; each module defines it.

        Args:
            tokens: modality → (B, T_m, W) floating, finite in the padding too.
            masks: modality → (B, T_m) bool, True where a position is valid; a row without any is
                an utterance that lacks the modality, and no part of the loss of such a pair.

        Returns:
            modality → (B, T_m, W), in the padding finite values without a meaning; and the loss,
            a scalar ≥ 0 of float32 at least, or None where the module has none.
        """
        raise NotImplementedError


class DistributionAlignment(Alignment):
    """DAM: one constructor for each modality; the loss is L_DA (MGCMA eqs. 1–8).

    Args:
        modalities: their names.
        width: W, even.
        n_heads: attention heads; must divide W.
        dropout: see :class:`GaussianConstructor`.
        temperature: τ > 0.
        p: of eq. 5, positive.

    Raises:
        HeadError: a width that cannot be halved, or that ``n_heads`` does not divide.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        width: int,
        n_heads: int,
        dropout: float,
        temperature: float,
        p: float,
    ) -> None:
        super().__init__()
        self.constructors = nn.ModuleDict(
            {m: GaussianConstructor(width, n_heads, dropout) for m in modalities}
        )
        self.temperature = temperature
        self.p = p

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Hand on the sequences of μ; see :meth:`Alignment.forward`."""
        means, utterances = {}, {}
        for m, x in tokens.items():
            means[m], log_deviation = self.constructors[m](x, masks[m])
            utterances[m] = utterance_gaussian(means[m], log_deviation, masks[m])
        loss = _mean_over_pairs(
            masks,
            lambda m, n, both: distribution_loss(
                utterances[m], utterances[n], self.temperature, self.p, both
            ),
        )
        return means, loss


class TokenBlock(nn.Module):
    """One block of TAM: self-attention, cross-attention, feed-forward, for each modality its own.

    s_m = SelfAttention_m(x_m);  c_m = CrossAttention_m(queries s_m; keys and values s_n, n ≠ m);
    y_m = FFN_m(c_m). The inputs x_m are the y_m of the block before; what is attended to across
    modalities is the self-attention of *this* block (as the paper says). Each step is a residual
    branch behind a LayerNorm, and the FFN has ratio 4 [interpretation].

    Of more than two modalities, the other sequences are concatenated in time; with one, there is
    no cross-attention [interpretation].

    Args:
        modalities: their names.
        width: W.
        n_heads: attention heads; must divide W.
        dropout: of the residual branches, in [0, 1).

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(self, modalities: Iterable[str], width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        names = list(modalities)
        self.self_attention = nn.ModuleDict(
            {m: AttentionStep(width, n_heads, dropout) for m in names}
        )
        self.cross_attention = nn.ModuleDict(
            {m: AttentionStep(width, n_heads, dropout, foreign=True) for m in names}
            if len(names) > 1
            else {}
        )
        self.feed_forward = nn.ModuleDict({m: FeedForwardStep(width, dropout) for m in names})

    def forward(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Modality → (B, T_m, W) to the same; ``masks``: modality → (B, T_m) bool."""
        own = {m: self.self_attention[m](x, masks[m]) for m, x in tokens.items()}
        across = dict(own)
        for m, attend in self.cross_attention.items():
            others = [n for n in own if n != m]
            memory = torch.cat([own[n] for n in others], dim=1)
            across[m] = attend(own[m], torch.cat([masks[n] for n in others], dim=1), memory)
        return {m: self.feed_forward[m](x) for m, x in across.items()}


class TokenAlignment(Alignment):
    """TAM: N blocks of self- and cross-attention; no loss of its own (MGCMA, token granularity).

    Args:
        modalities: their names.
        width: W.
        n_heads: attention heads; must divide W.
        n_blocks: N ≥ 1.
        dropout: see :class:`TokenBlock`.

    Raises:
        HeadError: a width that ``n_heads`` does not divide.
    """

    def __init__(
        self, modalities: Iterable[str], width: int, n_heads: int, n_blocks: int, dropout: float
    ) -> None:
        super().__init__()
        names = list(modalities)
        self.blocks = nn.ModuleList(
            TokenBlock(names, width, n_heads, dropout) for _ in range(n_blocks)
        )

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Pass the sequences through the blocks; see :meth:`Alignment.forward`."""
        passed = dict(tokens)
        for block in self.blocks:
            passed = block(passed, masks)
        return passed, None


class InstanceAlignment(Alignment):
    """IAM: the loss is L_IA between the pooled sequences (MGCMA eqs. 9–11); no parameters.

    Args:
        temperature: τ > 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Hand the sequences on as they are; see :meth:`Alignment.forward`."""
        pooled = {m: masked_mean(x, masks[m]) for m, x in tokens.items()}
        loss = _mean_over_pairs(
            masks,
            lambda m, n, both: instance_loss(pooled[m], pooled[n], self.temperature, both),
        )
        return dict(tokens), loss


def instance_loss(
    first: Tensor, second: Tensor, temperature: float, present: Tensor | None = None
) -> Tensor:
    """L_IA, the symmetric InfoNCE with dot products / τ between two modalities (MGCMA eqs. 9–11).

    The representations are L2-normalised first [interpretation], so the dot products are cosines.

    Args:
        first: (B, W) floating, the utterances pooled in one modality.
        second: (B, W) floating, the same utterances in the other.
        temperature: τ > 0.
        present: (B,) bool, the utterances that have both modalities; None for all.

    Returns:
        Scalar, ≥ 0, float32 at least; 0 for fewer than two utterances.
    """
    return info_nce(first, second, temperature, present)


def _mean_over_pairs(
    masks: Mapping[str, Tensor], loss: Callable[[str, str, Tensor], Tensor]
) -> Tensor | None:
    """Average ``loss(m, n, both)`` over the pairs of modalities; None where there is one only.

    ``both`` is (B,) bool, the utterances that have m and n.
    """
    has = {m: mask.any(dim=1) for m, mask in masks.items()}
    losses = [loss(m, n, has[m] & has[n]) for m, n in combinations(masks, 2)]
    return torch.stack(losses).mean() if losses else None
