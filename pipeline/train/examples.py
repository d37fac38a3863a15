"""From entries of the cache to padded batches: what can be trained on, and what is left out."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ...cache import Entry, FeatureCache
from ...cache.ragged import padded
from ..corpora import Corpus, Utterance
from ..corpora.manifest import from_table
from ..encoder_files import find_encoder
from ..errors import PipelineError, unknown

# Padded frames in one batch: thirteen layers 768 wide are then 0.3 GB in float16.
_MOST_FRAMES = 16_384


@dataclass(frozen=True)
class Batch:
    """Padded hidden states (batch, layers, frames, dim), lengths (batch,), labels (batch,)."""

    features: dict[str, Tensor]
    lengths: dict[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Examples:
    """The utterances of a dataset whose features of every modality are in the cache.

    ``excluded`` gives the reason for each utterance that is left out, by id.
    """

    corpus: Corpus
    entries: Mapping[str, Entry]
    utterances: tuple[Utterance, ...]
    excluded: Mapping[str, str]

    def length(self, utterance: Utterance) -> int:
        """Return the frames of its longest modality."""
        return self._lengths[utterance.id]

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {
            one.id: max(entry.length(one.id) for entry in self.entries.values())
            for one in self.utterances
        }

    def batch(
        self,
        utterances: Sequence[Utterance],
        layers: Mapping[str, Sequence[int]],
        device: torch.device,
    ) -> Batch:
        """Read and pad a batch; of each modality only the positions ``layers`` are read."""
        ids = [one.id for one in utterances]
        features, lengths = {}, {}
        for modality, entry in self.entries.items():
            states, lengths[modality] = padded(entry.read(ids, layers[modality]))
            features[modality] = states.to(device)
        labels = [self.corpus.classes.index(str(one.label)) for one in utterances]
        return Batch(features, lengths, torch.tensor(labels, device=device))

    def in_batches(
        self, utterances: Sequence[Utterance], size: int, shuffle: torch.Generator | None = None
    ) -> Iterator[list[Utterance]]:
        """Divide utterances into batches of like length, in random order if ``shuffle`` is given.

        Shuffled, the utterances are sorted by length only within groups of twenty batches, so that
        little is padded and yet no two epochs have the same batches. Very long utterances come in
        smaller batches, so that a mis-cut clip of five minutes does not need the memory of thirty.
        """
        order = list(utterances)
        if shuffle is not None:
            order = [order[at] for at in torch.randperm(len(order), generator=shuffle)]
        group = 20 * size if shuffle is not None else max(len(order), 1)
        batches: list[list[Utterance]] = []
        for start in range(0, len(order), group):
            batch: list[Utterance] = []
            for one in sorted(order[start : start + group], key=self.length):
                # Sorted, so the newest is the longest, and the batch is padded to its length.
                if len(batch) == size or (len(batch) + 1) * self.length(one) > _MOST_FRAMES:
                    batches.append(batch)
                    batch = []
                batch.append(one)
            batches.append(batch)
        batches = [batch for batch in batches if batch]
        if shuffle is not None:
            batches = [batches[at] for at in torch.randperm(len(batches), generator=shuffle)]
        yield from batches


def find_examples(
    cache: str | Path,
    dataset: str,
    encoders: Mapping[str, str | None],
    classes: str | None = None,
) -> Examples:
    """Open the entries of a dataset and find out which utterances can be trained on.

    ``classes`` names the class set, where the corpus has several.

    Raises:
        CacheError: the cache holds no such features, or those of several encoders.
        UsageError: the cache has never heard of the dataset, the corpus has no such class set, or
            an encoder is given as a folder that holds none.
        PipelineError: the cache is empty, or no utterance is left.
    """
    features = FeatureCache(cache)
    known = features.datasets()
    if not known:
        raise PipelineError(f"{features.root} holds no features yet: run 'mser extract' first")
    if dataset not in known:
        raise unknown(f"dataset (in {features.root})", dataset, known)
    entries = {
        modality: _open(features, dataset, modality, encoder)
        for modality, encoder in encoders.items()
    }
    newest = max(entries.values(), key=lambda entry: entry.published)
    whole, audio_hashes = from_table(features.read_manifest(dataset, newest.manifest))
    corpus = whole.in_classes(classes)
    excluded = {}
    for utterance, unmerged in zip(corpus.utterances, whole.utterances, strict=True):
        if utterance.label is None and unmerged.label is not None:
            reason: str | None = f"its label '{unmerged.label}' is in none of the classes"
        else:
            reason = _why_not(utterance, entries, audio_hashes)
        if reason:
            excluded[utterance.id] = reason
    utterances = tuple(one for one in corpus.utterances if one.id not in excluded)
    if not utterances:
        raise PipelineError(
            f"none of the {len(corpus.utterances)} utterances of {dataset} can be trained on "
            f"({next(iter(excluded.values()), 'the corpus is empty')})"
        )
    return Examples(corpus, entries, utterances, excluded)


def _open(cache: FeatureCache, dataset: str, modality: str, encoder: str | None) -> Entry:
    if encoder is None or not Path(encoder).expanduser().is_dir():
        return cache.open(dataset, encoder, modality=modality)
    # A folder has weights, and a name alone might be that of another encoder.
    files = find_encoder(encoder)
    expect = {"weights": files.weights_hash()}
    return cache.open(dataset, files.name, modality=modality, expect=expect)


def _why_not(
    utterance: Utterance, entries: Mapping[str, Entry], audio_hashes: Mapping[str, str | None]
) -> str | None:
    if utterance.label is None:
        return "it has no label"
    for modality, entry in entries.items():
        if utterance.id in entry.quarantine:
            return f"{modality}: {entry.quarantine[utterance.id].reason}"
        if utterance.id not in entry:
            return f"{modality}: not extracted yet"
        if entry.spec.identity.get("source") == "imported":
            continue  # its hashes are those of the features: nobody knows from what they were made
        current = audio_hashes[utterance.id]
        if modality == "text" and utterance.text is not None:
            current = hashlib.sha256(utterance.text.encode()).hexdigest()
        if current is not None and entry.content_hash(utterance.id) != current:
            return f"{modality}: changed since it was extracted"
    return None
