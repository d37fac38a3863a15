"""The three granularities of MGCMA (arXiv 2412.20821, ICASSP 2025) as interchangeable modules.

Each module takes sequences and masks, and returns sequences of the same shapes and possibly a loss.
Therefore any list of modules, in any order, is a model (the paper's Tables II and III):

    distribution (DAM, eqs. 1–8): aligns the Gaussians of an utterance, see :mod:`.gaussian`;
        returns the means μ [interpretation]
    token (TAM): self-attention in each modality and cross-attention between them; has no loss
    instance (IAM, eqs. 9–11): aligns the pooled sequences of an utterance; returns the sequences
        unchanged

The paper has two modalities. With more, a loss is the mean over the pairs of modalities; with one,
there is no loss [interpretation].
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
    """The interface of the alignment modules."""

    __call__: Callable[..., Aligned]

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Align a batch; each module implements this method.

        Args:
            tokens: modality → (B, T_m, W) floating, finite in the padding too.
            masks: modality → (B, T_m) bool, True at a valid position. A row without a valid
                position is an utterance that lacks the modality; the losses of pairs with this
                modality leave the utterance out.

        Returns:
            modality → (B, T_m, W), finite but meaningless in the padding; and the loss, a scalar
            ≥ 0 in float32 or wider, or None if the module has no loss.
        """
        raise NotImplementedError


class DistributionAlignment(Alignment):
    """DAM: one constructor for each modality; the loss is L_DA (MGCMA eqs. 1–8).

    Args:
        modalities: names of the modalities.
        width: W, the width of the sequences; even.
        n_heads: number of attention heads; must divide W.
        dropout: see :class:`GaussianConstructor`.
        temperature: τ > 0.
        p: the factor p of eq. 5, positive.

    Raises:
        HeadError: the width is odd, or ``n_heads`` does not divide it.
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
        """Return the sequences of μ and the loss; see :meth:`Alignment.forward`."""
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
    """One block of TAM: self-attention, cross-attention and feed-forward for each modality.

    s_m = SelfAttention_m(x_m);  c_m = CrossAttention_m(queries s_m; keys and values s_n, n ≠ m);
    y_m = FFN_m(c_m). The inputs x_m are the outputs y_m of the previous block. The cross-attention
    reads the self-attention s_n of *this* block (as in the paper). Each step is a pre-LN residual
    branch, and the FFN has ratio 4 [interpretation].

    With more than two modalities, the sequences of the others are concatenated in time; with one,
    there is no cross-attention [interpretation].

    Args:
        modalities: names of the modalities.
        width: W, the width of the sequences.
        n_heads: number of attention heads; must divide W.
        dropout: rate of the residual branches, in [0, 1).

    Raises:
        HeadError: ``n_heads`` does not divide the width.
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
    """TAM: N blocks of self- and cross-attention; has no loss (MGCMA, token granularity).

    Args:
        modalities: names of the modalities.
        width: W, the width of the sequences.
        n_heads: number of attention heads; must divide W.
        n_blocks: N ≥ 1, the number of blocks.
        dropout: see :class:`TokenBlock`.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
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
    """IAM: the loss is L_IA between the pooled sequences (MGCMA eqs. 9–11); has no parameters.

    Args:
        temperature: τ > 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Aligned:
        """Return the sequences unchanged and the loss; see :meth:`Alignment.forward`."""
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
        first: (B, W) floating, the pooled utterances in one modality.
        second: (B, W) floating, the same utterances in the other modality.
        temperature: τ > 0.
        present: (B,) bool, the utterances that have both modalities; None for all.

    Returns:
        Scalar, ≥ 0, float32 or wider; 0 for fewer than two utterances.
    """
    return info_nce(first, second, temperature, present)


def _mean_over_pairs(
    masks: Mapping[str, Tensor], loss: Callable[[str, str, Tensor], Tensor]
) -> Tensor | None:
    """Return the mean of ``loss(m, n, both)`` over the pairs of modalities; None without a pair.

    ``both`` is (B,) bool, the utterances that have m and n.
    """
    present = {m: mask.any(dim=1) for m, mask in masks.items()}
    losses = [loss(m, n, present[m] & present[n]) for m, n in combinations(masks, 2)]
    return torch.stack(losses).mean() if losses else None
