"""From utterances to padded batches: from memory if the features fit, else from the cache."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from ...cache import Entry, release_maps
from ...cache.formats.arrays import Array
from ...cache.torch_dataset import padded
from ...heads import Dialogues
from ...heads.dialogues import UNKNOWN
from ..corpora import Utterance
from .batches import BatchSampler, dialogue_of
from .examples import TrainingExamples
from .objectives import target_tensor
from .speaker_normalisation import SpeakerNormalisation

LayerPositions = Mapping[str, Sequence[int]]

_AHEAD = 2  # batches that are read ahead
_SHARE = 0.5  # of the free memory
_CHUNK = 64  # utterances copied at once


@dataclass(frozen=True)
class Batch:
    """Padded hidden states (batch, layers, frames, dim), lengths (batch,), labels (batch,).

    Pooled features are (batch, layers, width), and their length is 1. Labels are the targets of the
    objective; those of a turn that is only context are 0. The length of the batch is the number of
    its utterances that are not only context.
    """

    features: dict[str, Tensor]
    lengths: dict[str, Tensor]
    labels: Tensor
    dialogues: Dialogues | None

    def __len__(self) -> int:
        return len(self.labels) if self.dialogues is None else len(self.dialogues.labelled())


class PaddedReader(Protocol):
    """Gives the hidden states of a modality."""

    def padded(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (batch, layers, frames, dim) on the device, padded with zeros, and the lengths."""


@dataclass(frozen=True)
class Streamed:
    """Reads the features of a modality from the cache, and only ``layers`` of them."""

    entry: Entry
    layers: Sequence[int]
    device: torch.device
    release: bool
    """Whether features that were read stop counting as memory of this process."""

    def padded(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See :class:`PaddedReader`."""
        layers = [self.entry.layers[position] for position in self.layers]
        states, lengths = padded(self.entry.read(ids, layers))
        if self.release:
            release_maps()
        if self.device.type == "cuda":
            return states.pin_memory().to(self.device, non_blocking=True), lengths
        return states, lengths


class Loaded:
    """The features of a modality in memory: all utterances end to end, then a frame of zeros."""

    def __init__(
        self, entry: Entry, layers: Sequence[int], ids: Sequence[str], device: torch.device
    ) -> None:
        self.lengths = {id: entry.length(id) for id in ids}
        self.starts, frames = {}, 0
        for id, length in self.lengths.items():
            self.starts[id] = frames
            frames += length
        dtype = getattr(torch, entry.spec.read_dtype)
        self.states = torch.zeros(len(layers), frames + 1, entry.dim, dtype=dtype, device=device)
        numbers = [entry.layers[position] for position in layers]
        for start in range(0, len(ids), _CHUNK):
            some = ids[start : start + _CHUNK]
            for id, array in zip(some, entry.read(some, numbers), strict=True):
                start_frame = self.starts[id]
                copy = torch.tensor(array)  # a copy: torch warns about a map that is read-only
                self.states[:, start_frame : start_frame + len(copy[0])] = copy.to(device)

    def padded(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See :class:`PaddedReader`."""
        lengths = torch.tensor([self.lengths[id] for id in ids])
        starts = torch.tensor([self.starts[id] for id in ids])
        frame = torch.arange(int(lengths.max()))
        zeros = self.states.shape[1] - 1
        rows = torch.where(frame < lengths[:, None], starts[:, None] + frame, zeros)
        states = self.states.index_select(1, rows.flatten().to(self.states.device))
        layers, dim = len(self.states), self.states.shape[2]
        return states.view(layers, len(ids), -1, dim).transpose(0, 1), lengths


class Pooled:
    """The pooled features of a modality in memory, (utterances, layers, width) float32."""

    def __init__(
        self,
        entry: Entry,
        layers: Sequence[int],
        ids: Sequence[str],
        width: int,
        device: torch.device,
    ) -> None:
        self.rows = {id: row for row, id in enumerate(ids)}
        numbers = [entry.layers[position] for position in layers]
        self.vectors = torch.empty(len(ids), len(numbers), width, device=device)
        for start in range(0, len(ids), _CHUNK):
            some = np.stack(entry.read(ids[start : start + _CHUNK], numbers))[:, :, 0, :width]
            self.vectors[start : start + len(some)] = torch.from_numpy(some)

    def padded(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (batch, layers, width) and lengths of 1; see :class:`PaddedReader`."""
        rows = torch.tensor([self.rows[id] for id in ids], device=self.vectors.device)
        return self.vectors[rows], torch.ones(len(ids), dtype=torch.int64)


class FeatureLoader:
    """Gives the hidden states that a head reads, for all utterances that can be trained on.

    Args:
        examples: the utterances and their entries.
        layers: modality → the positions that the head reads, among the cached layers.
        device: the device of the batches.
        keep: ``memory``, ``stream`` or ``auto``. ``auto`` streams features that are mapped into
            memory, since all processes share the map; else it uses memory if the features fit into
            half of the free memory. ``stream`` keeps three batches in memory: it also releases the
            pages of the map.
        processes: how many processes share the memory.
        pooled: modality → width of the pooled features that the head reads; ``None`` for a head
            that reads frames. Pooled features are always in memory.
        by_speaker: the modalities whose features are normalised by speaker.

    Attributes:
        speakers: modality → its speaker normalisation.
    """

    def __init__(
        self,
        examples: TrainingExamples,
        layers: LayerPositions,
        device: torch.device,
        keep: str = "auto",
        processes: int = 1,
        pooled: Mapping[str, int] | None = None,
        by_speaker: Collection[str] = (),
    ) -> None:
        self.examples, self.device, self.pooled = examples, device, pooled is not None
        ids = [utterance.id for utterance in examples.readable]
        self.speakers: dict[str, SpeakerNormalisation] = {}
        for m in by_speaker:
            numbers = [examples.entries[m].layers[position] for position in layers[m]]
            self.speakers[m] = SpeakerNormalisation.of(
                examples.pooled[m], numbers, examples.readable, device
            )
        self.readers: dict[str, PaddedReader]
        if pooled is not None:
            self.in_memory = True
            self.readers = {
                m: Pooled(entry, layers[m], ids, pooled[m], device)
                for m, entry in examples.pooled.items()
            }
            return
        need = sum(_bytes(examples.entries[m], layers[m], ids) for m in layers)
        mapped = device.type == "cpu" and all(
            _is_mapped(entry[ids[0]]) for entry in examples.entries.values()
        )
        fits = need <= _SHARE * _free(device) / processes
        self.in_memory = keep == "memory" or (keep == "auto" and fits and not mapped)
        self.readers = {
            m: Loaded(entry, layers[m], ids, device)
            if self.in_memory
            else Streamed(entry, layers[m], device, release=keep == "stream")
            for m, entry in examples.entries.items()
        }

    def batches(
        self,
        plan: BatchSampler,
        order: Iterable[Sequence[Utterance]],
        missing: Collection[str] = (),
    ) -> Iterator[Batch]:
        """Yield the batches of an ``order`` of ``plan``; ``missing`` modalities have length 0.

        Streamed features are read ahead on another thread.
        """
        if self.in_memory:
            for part in order:
                yield self._batch(part, plan, missing)
            return
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for part in order:
                waiting.append(pool.submit(self._batch, part, plan, missing))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            for batch in waiting:
                yield batch.result()

    def _batch(
        self, part: Sequence[Utterance], plan: BatchSampler, missing: Collection[str]
    ) -> Batch:
        return self.batch(part, missing, dialogues_of(part, plan), plan.context)

    def batch(
        self,
        part: Sequence[Utterance],
        missing: Collection[str] = (),
        dialogues: Dialogues | None = None,
        context: Collection[str] = (),
    ) -> Batch:
        """Return a batch in the order of ``part``; ``context`` are ids of turns without a loss."""
        ids = [utterance.id for utterance in part]
        features, lengths = {}, {}
        for m, reader in self.readers.items():
            features[m], lengths[m] = reader.padded(ids)
            if speakers := self.speakers.get(m):
                normalise = speakers.pooled if self.pooled else speakers.frames
                features[m] = normalise(ids, features[m])
            if m in missing:
                lengths[m] = torch.zeros_like(lengths[m])
                if not self.pooled:
                    features[m] = features[m][:, :, :1]
        labels = target_tensor(self.examples.targets, part, context)
        return Batch(features, lengths, labels.to(self.device), dialogues)


def dialogues_of(part: Sequence[Utterance], plan: BatchSampler) -> Dialogues | None:
    """Return the dialogues of a batch of ``plan``; ``None`` if the plan has no dialogues."""
    if plan.dialogue_sizes is None:
        return None
    names = [dialogue_of(utterance) for utterance in part]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    speakers = [utterance.speaker for utterance in part]
    number_of: dict[str | None, int] = {
        speaker: number for number, speaker in enumerate(dict.fromkeys(speakers))
    }
    number_of[None] = UNKNOWN
    return Dialogues(
        torch.tensor([numbers[name] for name in names]),
        torch.tensor([plan.dialogue_sizes[name] for name in names]),
        torch.tensor([number_of[speaker] for speaker in speakers]),
        torch.tensor([utterance.id in plan.context for utterance in part]),
    )


def _bytes(entry: Entry, layers: Sequence[int], ids: Sequence[str]) -> int:
    frames = sum(map(entry.length, ids))
    return frames * len(layers) * entry.dim * np.dtype(entry.spec.read_dtype).itemsize


def _is_mapped(array: Array | None) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
