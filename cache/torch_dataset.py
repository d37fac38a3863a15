"""Ragged batches for PyTorch: a dataset of an entry's utterances, and how to pad them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .entry import Entry
from .formats.arrays import Array


class DatasetItem(NamedTuple):
    """One utterance: its id and its hidden states (layers, frames, dim), read-only."""

    id: str
    hidden_states: Array


class PaddedBatch(NamedTuple):
    """Ids, hidden states (batch, layers, most frames, dim) padded with zeros, lengths (batch,)."""

    ids: list[str]
    hidden_states: Tensor
    lengths: Tensor


class UtteranceDataset(Dataset[DatasetItem]):
    """Utterances of an entry as a PyTorch dataset; ``pad`` is the ``collate_fn`` that goes with it.

    ``ids`` are by default all of the entry's, ``layers`` positions among the stored layers as for
    :meth:`Entry.read`; others are never read. It works in the workers of a ``DataLoader``, spawned
    or forked, and in threads. It is of no use for a single pass over few utterances, for which
    ``Entry.read`` is simpler.

    >>> from torch.utils.data import DataLoader
    >>> dataset = UtteranceDataset(entry, layers=[-1])  # doctest: +SKIP
    >>> for ids, states, lengths in DataLoader(dataset, 32, collate_fn=pad):  # doctest: +SKIP
    ...     ...
    """

    def __init__(
        self, entry: Entry, ids: Sequence[str] | None = None, layers: Sequence[int] | None = None
    ) -> None:
        self.entry, self.layers = entry, layers
        self.ids: Sequence[str] = entry.ids if ids is None else ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> DatasetItem:
        return self.__getitems__([at])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[DatasetItem]:
        """Return a batch at once, which an object store delivers in parallel."""
        ids = [self.ids[at] for at in positions]
        return [
            DatasetItem(*one) for one in zip(ids, self.entry.read(ids, self.layers), strict=True)
        ]


def pad(items: Sequence[DatasetItem]) -> PaddedBatch:
    """Collate utterances into one padded batch."""
    return PaddedBatch([one.id for one in items], *padded([one.hidden_states for one in items]))


def padded(arrays: Sequence[Array]) -> tuple[Tensor, Tensor]:
    """Return arrays (layers, frames, dim) as one tensor padded with zeros, and their lengths.

    The tensor is (batch, layers, most frames, dim) and of the arrays' dtype, the lengths (batch,)
    are int64.
    """
    lengths = [array.shape[1] for array in arrays]
    layers, _, dim = arrays[0].shape
    batch = np.zeros((len(arrays), layers, max(lengths), dim), arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return torch.from_numpy(batch), torch.tensor(lengths)
