"""For PyTorch: a dataset of an entry's utterances, and a function that pads a batch of them."""

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
    """Ids, hidden states (batch, layers, frames, dim) padded with zeros, lengths (batch,)."""

    ids: list[str]
    hidden_states: Tensor
    lengths: Tensor


class UtteranceDataset(Dataset[DatasetItem]):
    """Utterances of an entry as a PyTorch dataset, for a ``DataLoader`` with ``collate_fn=pad``.

    It works in the workers of a ``DataLoader``, spawned or forked, and in threads. For a single
    pass over few utterances, :meth:`Entry.read` is simpler.

    Args:
        entry: an open entry.
        ids: the utterances; by default all of the entry.
        layers: the encoder's own layer numbers, as for :meth:`Entry.read`; by default all stored
            layers. Other layers are never read.

    Raises:
        NotFoundError: a layer is not stored.

    >>> from torch.utils.data import DataLoader
    >>> dataset = UtteranceDataset(entry, layers=[6, 12])  # doctest: +SKIP
    >>> for ids, states, lengths in DataLoader(dataset, 32, collate_fn=pad):  # doctest: +SKIP
    ...     ...
    """

    def __init__(
        self, entry: Entry, ids: Sequence[str] | None = None, layers: Sequence[int] | None = None
    ) -> None:
        entry.read([], layers)  # a layer that is not stored is an error here, not in a worker
        self.entry, self.layers = entry, layers
        self.ids: Sequence[str] = entry.ids if ids is None else ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> DatasetItem:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[DatasetItem]:
        """Return a batch at once, which an object store delivers in parallel."""
        ids = [self.ids[position] for position in positions]
        return list(map(DatasetItem, ids, self.entry.read(ids, self.layers)))


def pad(items: Sequence[DatasetItem]) -> PaddedBatch:
    """Collate utterances into one padded batch."""
    states, lengths = padded([item.hidden_states for item in items])
    return PaddedBatch([item.id for item in items], states, lengths)


def padded(arrays: Sequence[Array]) -> tuple[Tensor, Tensor]:
    """Return arrays (layers, frames, dim) as one tensor padded with zeros, and their lengths.

    The tensor is (batch, layers, frames, dim), as many frames as the longest array, with the
    arrays' dtype; the lengths are (batch,), int64.
    """
    lengths = [array.shape[1] for array in arrays]
    layers, _, dim = arrays[0].shape
    batch = np.zeros((len(arrays), layers, max(lengths), dim), arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return torch.from_numpy(batch), torch.tensor(lengths)
