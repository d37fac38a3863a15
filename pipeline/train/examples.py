"""From entries of the cache to utterances: what can be trained on, and what is left out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...cache import Entry, FeatureCache
from ..corpora import Corpus, Utterance
from ..corpora.manifest import from_table
from ..encoders.checkpoint_files import find_encoder
from ..errors import PipelineError, unknown
from ..modalities import source_of


@dataclass(frozen=True)
class Examples:
    """The utterances of a dataset whose features of every modality are in the cache.

    ``excluded`` gives the reason for each utterance that is left out, and ``audio_hashes`` the
    SHA-256 of each clip that was looked at, by id.
    """

    corpus: Corpus
    entries: Mapping[str, Entry]
    utterances: tuple[Utterance, ...]
    excluded: Mapping[str, str]
    audio_hashes: Mapping[str, str | None]

    def length(self, utterance: Utterance) -> int:
        """Return the frames of its longest modality."""
        return self._lengths[utterance.id]

    @cached_property
    def digest(self) -> str:
        """A hash of the corpus's rows and of every feature of the utterances."""
        known = hashlib.sha256(repr((self.corpus.classes, self.utterances)).encode())
        for modality, entry in sorted(self.entries.items()):
            known.update(f"{modality} {entry.spec.key}".encode())
            for one in self.utterances:
                known.update(entry.checksum(one.id).encode())
        return known.hexdigest()[:16]

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {
            one.id: max(entry.length(one.id) for entry in self.entries.values())
            for one in self.utterances
        }


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
    return Examples(corpus, entries, utterances, excluded, audio_hashes)


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
        if isinstance(source := source_of(utterance, modality), str):
            current = hashlib.sha256(source.encode()).hexdigest()
        if current is not None and entry.content_hash(utterance.id) != current:
            return f"{modality}: changed since it was extracted"
    return None
