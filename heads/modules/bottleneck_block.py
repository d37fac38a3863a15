"""Fusion through a few bottleneck tokens, the only connection between the modalities."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import PreNormBlock


class BottleneckBlock(nn.Module):
    """One layer of bottleneck fusion (MBT: Nagrani et al., NeurIPS 2021).

    For each modality m, with its own weights, [z_m' ; b_m'] = Block_m([z_m ; b]); then b' is the
    mean of b_m' over the modalities that an utterance has. Tokens of different modalities never
    attend to each other: information passes from one modality to another only through b', which
    the next layer reads.

    Args:
        modalities: names of the modalities.
        width: W, the width of tokens and bottlenecks.
        n_heads: number of attention heads; must divide W.
        dropout: see :class:`PreNormBlock`.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(self, modalities: Iterable[str], width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({m: PreNormBlock(width, n_heads, dropout) for m in modalities})

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        bottlenecks: Tensor,
        update_tokens: bool = True,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update the bottlenecks and, if ``update_tokens``, the tokens.

        Args:
            tokens: modality → (B, T_m, W) floating z_m, finite in the padding too.
            masks: modality → (B, T_m) bool, True where a token is valid.
            bottlenecks: (B, N, W) floating b.
            update_tokens: False to compute only b'. The b' is the same and costs less: N queries
                for each modality in place of T_m + N.

        Returns:
            modality → (B, T_m, W) z_m' (an empty dict without ``update_tokens``), and (B, N, W) b'.
        """
        n = bottlenecks.shape[1]
        new_tokens, total = {}, torch.zeros_like(bottlenecks)
        for m, z in tokens.items():
            rows = torch.cat([z, bottlenecks], dim=1)
            valid = F.pad(masks[m], (0, n), value=True)  # bottlenecks are never padding
            if update_tokens:
                updated = self.blocks[m](rows, valid)
                new_tokens[m] = updated[:, :-n]
            else:
                updated = self.blocks[m](bottlenecks, valid, memory=rows)
            total = total + torch.where(_present(masks[m]), updated[:, -n:], 0.0)
        n_present = torch.stack([_present(masks[m]) for m in tokens]).sum(dim=0)
        return new_tokens, total / n_present


def _present(mask: Tensor) -> Tensor:
    """(B, T) → (B, 1, 1) bool, whether the utterance has the modality."""
    return mask.any(dim=1)[:, None, None]
