"""Speaker normalisation: hidden states relative to what is usual for their speaker.

    x̂ = (x - mean_s) / deviation_s,   for each layer and dimension,

over the frames of all utterances of the speaker s, each utterance weighing the same. No label is
used, but the utterances of the test part are: a test speaker is normalised by the speaker's own
utterances. So a score with speaker normalisation holds for speakers of whom many utterances are at
hand, in a similar mixture of emotions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...cache import Entry
from ...heads.modules.standardisation import floored, frame_statistics
from ..corpora import Utterance
from ..errors import UsageError
from ..modalities import modality_names

FEW = 10
"""A speaker with fewer utterances has no statistics of their own [interpretation]."""

_REST = ""  # the group of all speakers with few utterances, and of utterances without a speaker


@dataclass(frozen=True)
class SpeakerNormalisation:
    """The statistics of the speakers, of one modality and the layers that a head reads."""

    group_of: Mapping[str, int]
    """Id of an utterance → the row of its speaker."""
    mean: Tensor
    """(speakers, L, D) float32."""
    deviation: Tensor
    """(speakers, L, D) float32, above 0."""

    @classmethod
    def of(
        cls,
        pooled: Entry,
        layers: Sequence[int],
        utterances: Sequence[Utterance],
        device: torch.device,
    ) -> "SpeakerNormalisation":
        """Return the statistics of the speakers of some utterances; no frame is read.

        Speakers with fewer than :data:`FEW` utterances are one group, together with the utterances
        whose speaker is not known.

        Args:
            pooled: the pooled features of the modality.
            layers: the encoder's numbers of the L layers.
            utterances: all utterances that are normalised.
            device: where the statistics are kept.
        """
        names = _groups(utterances)
        rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
        ids = [utterance.id for utterance in utterances]
        group = torch.tensor([rows[name] for name in names])
        mean = torch.empty(len(rows), len(layers), pooled.dim // 2)
        deviation = torch.empty_like(mean)
        # One layer at a time, since all of them may need gigabytes.
        for position, layer in enumerate(layers):
            vectors = torch.from_numpy(np.stack(pooled.read(ids, [layer])))[:, :, 0]
            for row in range(len(rows)):
                usual, spread = frame_statistics(vectors[group == row])
                mean[row, position], deviation[row, position] = usual, floored(usual, spread)
        group_of = dict(zip(ids, group.tolist(), strict=True))
        return cls(group_of, mean.to(device), deviation.to(device))

    def frames(self, ids: Iterable[str], states: Tensor) -> Tensor:
        """Normalise hidden states.

        Args:
            ids: those of the B utterances.
            states: (B, L, T, D) floating, on the device of the statistics.

        Returns:
            (B, L, T, D) float32; what was padding has no meaning.
        """
        rows = self._rows(ids)
        mean, deviation = self.mean[rows].unsqueeze(2), self.deviation[rows].unsqueeze(2)
        return (states - mean).div_(deviation)

    def pooled(self, ids: Iterable[str], vectors: Tensor, layer: int | None = None) -> Tensor:
        """Give the pooled vectors that normalised frames have.

        Args:
            ids: those of the B utterances.
            vectors: (B, L, D) floating means, or (B, L, 2 · D): means, then standard deviations.
            layer: the position of the only layer of ``vectors``; default: all L layers.

        Returns:
            A tensor of the same shape.
        """
        rows, layers = self._rows(ids), slice(None) if layer is None else slice(layer, layer + 1)
        mean, deviation = self.mean[rows][:, layers], self.deviation[rows][:, layers]
        means, spreads = vectors[..., : mean.shape[2]], vectors[..., mean.shape[2] :]
        parts = [(means - mean) / deviation, spreads / deviation[..., : spreads.shape[2]]]
        return torch.cat(parts, dim=2)

    def _rows(self, ids: Iterable[str]) -> Tensor:
        # An utterance that lacks the modality has only padding: any row will do.
        return torch.tensor([self.group_of.get(id, 0) for id in ids], device=self.mean.device)


def require_speakers(utterances: Sequence[Utterance], dataset: str) -> None:
    """Check that speakers can be normalised.

    Raises:
        UsageError: no speaker has :data:`FEW` utterances.
    """
    if set(_groups(utterances)) == {_REST}:
        raise UsageError(
            f"speaker_normalisation needs speakers with {FEW} utterances or more, and {dataset} "
            "has none: add the column speaker, or train without the setting"
        )


def require_one_clip_is_enough(run: Path, by_speaker: Sequence[str]) -> None:
    """Check that a run can predict one clip alone.

    Raises:
        UsageError: the run normalises ``by_speaker`` modalities by speaker.
    """
    if by_speaker:
        raise UsageError(
            f"{run} normalises {modality_names(by_speaker, 'and')} by speaker, and one clip does "
            "not tell what is usual for its speaker: give a manifest with the column speaker, and "
            f"{FEW} or more utterances of each"
        )


def speaker_note(utterances: Sequence[Utterance], modalities: Sequence[str]) -> str:
    """Return the sentence that tells what a score with speaker normalisation holds for."""
    names = _groups(utterances)
    rest = names.count(_REST)
    others = f"; utterances of other or unknown speakers ({rest}) are one group" if rest else ""
    return (
        f"the features of {modality_names(modalities, 'and')} are normalised by speaker, "
        f"{len(set(names) - {_REST})} in all, from all utterances of each, also those of the test "
        f"part, without their labels{others}"
    )


def _groups(utterances: Sequence[Utterance]) -> list[str]:
    """Return the group of each utterance."""
    counts = Counter(utterance.speaker for utterance in utterances)
    return [
        utterance.speaker if utterance.speaker and counts[utterance.speaker] >= FEW else _REST
        for utterance in utterances
    ]
