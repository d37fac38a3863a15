"""Fit the standardisation of a head to the training part."""

from collections.abc import Sequence

import numpy as np
import torch

from ...heads import Head
from ...heads.modules.standardisation import frame_statistics, pooled_statistics
from ..corpora import Utterance
from .features import FeatureLoader


def standardise(head: Head, features: FeatureLoader, train: Sequence[Utterance]) -> None:
    """Give the standardisation of a head the statistics of a training part.

    Each utterance weighs the same, whatever its length. The statistics come from the pooled
    features, so no frame is read. They are those of what ``features`` gives the head: after the
    speaker normalisation, if there is one.
    """
    examples = features.examples
    ids = [utterance.id for utterance in train]
    statistics = pooled_statistics if head.reads_pooled else frame_statistics
    for modality in head.standardisations:
        entry, layers = examples.pooled[modality], examples.entries[modality].layers
        width = head.widths[modality]
        # One layer at a time, since all of them may need gigabytes.
        parts = []
        for number, position in enumerate(head.layers[modality]):
            pooled = torch.from_numpy(np.stack(entry.read(ids, [layers[position]])))[:, :, 0]
            if speakers := features.speakers.get(modality):
                pooled = speakers.pooled(ids, pooled.to(features.device), number).cpu()
            parts.append(statistics(pooled[..., :width] if head.reads_pooled else pooled))
        means, deviations = zip(*parts, strict=True)
        head.standardisation(modality).fit(torch.cat(means), torch.cat(deviations))
