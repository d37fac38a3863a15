"""Utterances with identical input in a batch, which are no negatives of each other.

A contrastive loss pulls the two views of utterance i together, and pushes them away from the views
of every other utterance j, the negatives. If i and j are the same words ("Yeah.") or the same
features, the view of j is identical to the positive, and the loss contradicts itself: such a j is a
*false* negative (Chuang et al., NeurIPS 2020, describe the problem). Therefore the pair (i, j)
leaves the denominator [interpretation].
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..errors import unknown

HANDLINGS = ("drop", "keep")
"""The values of the option ``false_negatives`` of the heads."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLE = 16  # channels that are compared before the whole input

Repeats = Mapping[str, Tensor]
"""Modality → (B, B) bool, see :func:`repeats`; empty where all utterances are negatives."""

NO_REPEATS: Repeats = MappingProxyType({})


def repeats(x: Tensor, lengths: Tensor) -> Tensor:
    """Find the pairs of utterances with bitwise equal input of equal length.

    The utterances are sorted by their length and a few numbers from their middle position; only
    utterances that agree in these are compared in full. Therefore a batch without repetitions costs
    almost nothing, and on a GPU one small transfer.

    Args:
        x: (B, L, T, D) floating, the hidden states that the head reads.
        lengths: (B,) int64 valid positions; the rest of T is not compared.

    Returns:
        (B, B) bool on the device of ``x``, True where i ≠ j have identical input. An utterance of
        length 0 has no input, and is identical to none.
    """
    bits = x.detach().view(_BITS[x.element_size()])
    counts = lengths.tolist()
    rows = torch.arange(len(x), device=x.device)
    middle = bits[rows, -1, (lengths // 2).to(x.device), :_SAMPLE].tolist()
    alike: dict[tuple[int, ...], list[int]] = {}  # the first of each different input
    first = list(range(len(counts)))
    for i, (count, sample) in enumerate(zip(counts, middle, strict=True)):
        if count:
            known = alike.setdefault((count, *sample), [])
            same = (j for j in known if torch.equal(bits[i, :, :count], bits[j, :, :count]))
            first[i] = next(same, i)
            if first[i] == i:
                known.append(i)
    group = torch.tensor(first, device=x.device)
    return (group == group.unsqueeze(1)).fill_diagonal_(False)


def in_either(found: Repeats, modalities: Iterable[str]) -> Tensor | None:
    """Return (B, B) bool, the pairs that are identical in at least one of the modalities.

    None if ``found`` is empty: no pair leaves a denominator.
    """
    return torch.stack([found[m] for m in modalities]).any(dim=0) if found else None


class FalseNegatives(nn.Module):
    """Find the false negatives of a batch for the contrastive losses of a head.

    Args:
        handling: ``"drop"`` to let the false negatives leave the denominators, ``"keep"`` for plain
            losses.
        contrasts: False if the head has no contrastive loss, so that there is nothing to find.

    Raises:
        HeadError: another value.
    """

    def __init__(self, handling: str, contrasts: bool) -> None:
        super().__init__()
        if handling not in HANDLINGS:
            raise unknown("value of false_negatives", handling, HANDLINGS)
        self.drops = contrasts and handling == "drop"

    def forward(self, hidden: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Repeats:
        """Return modality → (B, B) bool, see :func:`repeats`; empty if nothing is dropped.

        Args:
            hidden: modality → (B, L_m, T_m, D_m) floating hidden states.
            lengths: modality → (B,) int64 valid positions.
        """
        if not self.drops:
            return NO_REPEATS
        return {m: repeats(x, lengths[m]) for m, x in hidden.items()}

    def counts(self, found: Repeats) -> dict[str, Tensor]:
        """Return ``false_negatives``, how many pairs of utterances are identical in a modality.

        Scalar float32, a pair counts once; no entry if ``found`` is empty.
        """
        pairs = in_either(found, found)
        return {} if pairs is None else {"false_negatives": pairs.sum() / 2}
