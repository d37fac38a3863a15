"""Features of clips and texts that a run was not trained on, by the encoders of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache import Entry, pooled_entry
from ...cache.torch_dataset import padded
from ..corpora import Corpus, Utterance
from ..encoders import Encoder
from ..extract import ExtractSettings, extract
from ..feature_cache import FeatureCache
from ..modalities import source_of
from ..train.speaker_normalisation import SpeakerNormalisation


@dataclass(frozen=True)
class NewFeatures:
    """The features of one modality; ``entry`` is ``None`` if no utterance has its content.

    ``layers`` are the encoder's numbers of the layers that the head reads, ``dim`` their width.
    ``speakers`` is the speaker normalisation of the run, with the statistics of these features.
    """

    modality: str
    entry: Entry | None
    layers: tuple[int, ...]
    dim: int
    speakers: SpeakerNormalisation | None = None

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def length(self, id: str) -> int:
        """Return the frames of an utterance; 0 if it lacks the modality."""
        return self.entry.length(id) if self.entry is not None and id in self else 0

    def problem(self, utterance: Utterance) -> str | None:
        """Return why the content of an utterance has no features; ``None`` if it has no content."""
        if utterance.id in self or not has_content(utterance, self.modality):
            return None
        bad = self.entry.quarantine.get(utterance.id) if self.entry is not None else None
        return "its features are missing" if bad is None else f"{bad.reason}: {bad.detail}"

    def padded(self, ids: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (batch, layers, frames, dim) on the device, and lengths (batch,) on the CPU.

        An utterance that lacks the modality has the length 0.
        """
        held = [id for id in ids if id in self]
        states = self.entry.read(held, self.layers) if self.entry is not None else []
        arrays = dict(zip(held, states, strict=True))
        nothing = np.zeros((len(self.layers), 1, self.dim), states[0].dtype if states else "f4")
        features, _ = padded([arrays.get(id, nothing) for id in ids])
        features = features.to(device)
        if self.speakers is not None:
            features = self.speakers.frames(ids, features)
        return features, torch.tensor([self.length(id) for id in ids])

    def by_speaker(
        self, cache: Any, utterances: Sequence[Utterance], device: torch.device
    ) -> "NewFeatures":
        """Return these features of ``cache``, normalised by speaker."""
        held = [utterance for utterance in utterances if utterance.id in self]
        if self.entry is None or not held:
            return self
        pooled = pooled_entry(FeatureCache(cache), self.entry)
        speakers = SpeakerNormalisation.of(pooled, self.layers, held, device)
        return replace(self, speakers=speakers)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.entry.ids if self.entry is not None else ())


def has_content(utterance: Utterance, modality: str) -> bool:
    """Whether an utterance has what the features of a modality are computed from."""
    return bool(str(source_of(utterance, modality) or "").strip())


def extract_new(
    corpus: Corpus,
    manifest: Path,
    cache: Any,
    encoder: Encoder[Any],
    dtype: str,
    workers: int | None,
) -> NewFeatures:
    """Extract the features of a corpus by an encoder; those that the cache holds are kept.

    Args:
        corpus: the corpus of ``manifest``.
        manifest: the table that describes it.
        cache: where the features are written; a corpus of the same name in it is replaced.
        encoder: the encoder, with the layers to extract.
        dtype: of the features: ``float16`` or ``float32``.
        workers: processes on this machine; ``None`` for as many as the machine has room for.

    Raises:
        PipelineError, CacheError: see :func:`~mser.pipeline.extract.extract`.
    """
    modality, settings = encoder.modality, encoder.settings
    if not any(has_content(utterance, modality) for utterance in corpus.utterances):
        return NewFeatures(modality, None, encoder.layers, encoder.dim)
    summary = extract(
        ExtractSettings(
            "manifest",
            cache=cache,
            encoders={modality: settings.files.source},
            manifest=manifest,
            name=corpus.name,
            layers=settings.layers,
            dtype=dtype,
            precision=settings.precision,
            max_seconds=settings.max_seconds,
            fps=settings.frames.fps,
            video_frames=settings.frames.number,
            faces=settings.frames.faces.option,
            no_face=settings.frames.faces.absent,
            device=settings.device,
            workers=workers,
            replace=True,
        )
    )
    (of_modality,) = summary.modalities
    key = of_modality.entry.rpartition("-")[2]
    entry = FeatureCache(cache).open(corpus.name, key, modality=modality)
    return NewFeatures(modality, entry, encoder.layers, encoder.dim)
