"""The three granularities of MGCMA (arXiv 2412.20821, ICASSP 2025) as interchangeable modules.

Each module takes sequences and masks, and returns sequences of the same shapes and possibly a loss.
Therefore any list of modules, in any order, is a model (the paper's Tables II and III):

    distribution (DAM, eqs. 1–8): aligns the Gaussians of an utterance, see :mod:`.gaussian`;
        returns the sequences of the means μ, or its input [interpretation]
    token (TAM): self-attention in each modality and cross-attention between them; has no loss
    instance (IAM, eqs. 9–11): aligns the pooled sequences of an utterance; returns the sequences
        unchanged

The paper has two modalities. With more, a loss is the mean over the pairs of modalities; with one,
there is no loss [interpretation]. Utterances with identical input in a modality are no negatives of
each other [interpretation], see :mod:`..modules.false_negatives`.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from ..errors import unknown
from ..modules.attention import AttentionStep, FeedForwardStep
from ..modules.contrastive import dot_info_nce, info_nce
from ..modules.false_negatives import NO_REPEATS, Repeats, in_either
from ..modules.pooling import masked_mean
from .gaussian import GaussianConstructor, distribution_loss, utterance_gaussian

RETURNS = ("mean", "input")
"""What the distribution module may return; the values of the option ``distribution_returns``."""

SIMILARITIES = {"cosine": info_nce, "dot": dot_info_nce}
"""The values of the option ``instance_similarity``."""

Aligned = tuple[dict[str, Tensor], Tensor | None]
"""Modality → (B, T_m, W) sequences, and a scalar loss or None."""


class Alignment(nn.Module):
    """The interface of the alignment modules."""

    __call__: Callable[..., Aligned]

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        repeated: Repeats = NO_REPEATS,
    ) -> Aligned:
        """Align a batch; each module implements this method.

        Args:
            tokens: modality → (B, T_m, W) floating, finite in the padding too.
            masks: modality → (B, T_m) bool, True at a valid position. A row without a valid
                position is an utterance that lacks the modality; the losses of pairs with this
                modality leave the utterance out.
            repeated: modality → (B, B) bool, the pairs of utterances with identical input, which
                leave the denominators of the losses; empty if all utterances are negatives.

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
        output_projection: see :class:`GaussianConstructor`.
        returns: ``"mean"`` to return the sequences of μ, ``"input"`` to return the sequences
            unchanged: then the module only has a loss.

    Raises:
        HeadError: the width is odd, ``n_heads`` does not divide it, or ``returns`` is unknown.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        width: int,
        n_heads: int,
        dropout: float,
        temperature: float,
        p: float,
        *,
        output_projection: bool = True,
        returns: str = "mean",
    ) -> None:
        super().__init__()
        if returns not in RETURNS:
            raise unknown("value of distribution_returns", returns, RETURNS)
        self.constructors = nn.ModuleDict(
            {
                m: GaussianConstructor(width, n_heads, dropout, output_projection=output_projection)
                for m in modalities
            }
        )
        self.temperature = temperature
        self.p = p
        self.returns = returns

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        repeated: Repeats = NO_REPEATS,
    ) -> Aligned:
        """Return the sequences, of μ or unchanged, and L_DA; see :meth:`Alignment.forward`."""
        means, utterances = {}, {}
        for m, x in tokens.items():
            means[m], log_deviation = self.constructors[m](x, masks[m])
            utterances[m] = utterance_gaussian(means[m], log_deviation, masks[m])
        loss = _mean_over_pairs(
            masks,
            repeated,
            lambda m, n, both, same: distribution_loss(
                utterances[m], utterances[n], self.temperature, self.p, both, same
            ),
        )
        return (means if self.returns == "mean" else dict(tokens)), loss


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

    The blocks are pre-LN, so that the sum of their residual branches grows from block to block. A
    LayerNorm after the last block returns it to unit scale [interpretation]. Without it the loss of
    the next module would start at another scale, and two orders of the modules would differ by
    scale.

    Args:
        modalities: names of the modalities.
        width: W, the width of the sequences.
        n_heads: number of attention heads; must divide W.
        n_blocks: N ≥ 1, the number of blocks.
        dropout: see :class:`TokenBlock`.
        final_norm: False to leave out the LayerNorm after the last block.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        width: int,
        n_heads: int,
        n_blocks: int,
        dropout: float,
        *,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        names = list(modalities)
        self.blocks = nn.ModuleList(
            TokenBlock(names, width, n_heads, dropout) for _ in range(n_blocks)
        )
        normalised = names if final_norm else []
        self.final_norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in normalised})

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        repeated: Repeats = NO_REPEATS,
    ) -> Aligned:
        """Pass the sequences through the blocks; see :meth:`Alignment.forward`."""
        passed = dict(tokens)
        for block in self.blocks:
            passed = block(passed, masks)
        return passed | {m: norm(passed[m]) for m, norm in self.final_norms.items()}, None


class InstanceAlignment(Alignment):
    """IAM: the loss is L_IA between the pooled sequences (MGCMA eqs. 9–11); has no parameters.

    Args:
        temperature: τ > 0.
        similarity: see :func:`instance_loss`.

    Raises:
        HeadError: ``similarity`` is unknown.
    """

    def __init__(self, temperature: float, similarity: str = "cosine") -> None:
        super().__init__()
        if similarity not in SIMILARITIES:
            raise unknown("value of instance_similarity", similarity, SIMILARITIES)
        self.temperature = temperature
        self.similarity = similarity

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        repeated: Repeats = NO_REPEATS,
    ) -> Aligned:
        """Return the sequences unchanged and the loss; see :meth:`Alignment.forward`."""
        pooled = {m: masked_mean(x, masks[m]) for m, x in tokens.items()}
        loss = _mean_over_pairs(
            masks,
            repeated,
            lambda m, n, both, same: instance_loss(
                pooled[m], pooled[n], self.temperature, both, same, self.similarity
            ),
        )
        return dict(tokens), loss


def instance_loss(
    first: Tensor,
    second: Tensor,
    temperature: float,
    present: Tensor | None = None,
    repeated: Tensor | None = None,
    similarity: str = "cosine",
) -> Tensor:
    """L_IA, the symmetric InfoNCE with dot products / τ between two modalities (MGCMA eqs. 9–11).

    Args:
        first: (B, W) floating, the pooled utterances in one modality.
        second: (B, W) floating, the same utterances in the other modality.
        temperature: τ > 0.
        present: (B,) bool, the utterances that have both modalities; None for all.
        repeated: (B, B) bool, the pairs that are no negatives, see :func:`matching_loss`.
        similarity: ``"dot"`` for the paper's dot products; ``"cosine"`` to L2-normalise the
            representations first [interpretation]. At τ = 0.07, dot products of long vectors make
            the softmax one-hot.

    Returns:
        Scalar, ≥ 0, float32 or wider; 0 for fewer than two utterances.
    """
    return SIMILARITIES[similarity](first, second, temperature, present, repeated)


def _mean_over_pairs(
    masks: Mapping[str, Tensor],
    repeated: Repeats,
    loss: Callable[[str, str, Tensor, Tensor | None], Tensor],
) -> Tensor | None:
    """Return the mean of ``loss(m, n, both, same)`` over the pairs of modalities; None without one.

    ``both`` is (B,) bool, the utterances that have m and n; ``same`` is (B, B) bool, the pairs of
    utterances that are identical in m or n, or None.
    """
    present = {m: mask.any(dim=1) for m, mask in masks.items()}
    losses = [
        loss(m, n, present[m] & present[n], in_either(repeated, (m, n)))
        for m, n in combinations(masks, 2)
    ]
    return torch.stack(losses).mean() if losses else None
