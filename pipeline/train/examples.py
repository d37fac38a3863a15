"""Which utterances can be trained on, and why the others are excluded."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...cache import Entry, missing_pooled, pooled_entry
from ..corpora import Corpus, Utterance
from ..corpora.class_map import ClassMap
from ..corpora.manifest import content_hashes, from_table
from ..errors import PipelineError, UsageError
from ..feature_cache import FeatureCache, require_dataset
from ..modalities import MODALITIES, source_of
from ..progress import progress
from ..targets import EMOTION, Targets, require_known
from .joined_entry import JoinedEntry


@dataclass(frozen=True)
class TrainingExamples:
    """The utterances of a dataset with a target, and with features of every modality in the cache.

    ``excluded`` maps the id of each excluded utterance to the reason, and ``audio_hashes`` an id to
    the SHA-256 of its clip, where the extraction read it. ``context`` are excluded utterances of a
    dialogue that only lack a label of the classes: a head that reads dialogues reads them too.
    ``target`` are the names of the targets.
    """

    corpus: Corpus
    entries: Mapping[str, Entry]
    utterances: tuple[Utterance, ...]
    excluded: Mapping[str, str]
    audio_hashes: Mapping[str, str | None]
    cache: FeatureCache
    context: tuple[Utterance, ...] = ()
    target: tuple[str, ...] = EMOTION

    @cached_property
    def targets(self) -> Targets:
        """What is predicted of the utterances."""
        return Targets(self.target, self.corpus.classes)

    @cached_property
    def pooled(self) -> dict[str, Entry]:
        """Modality → the pooled features of its entry; computed once for the whole cache."""
        return {m: _pooled(self.cache, m, entry) for m, entry in self.entries.items()}

    @property
    def readable(self) -> tuple[Utterance, ...]:
        """The utterances whose features may be read: with a label, or as context."""
        return (*self.utterances, *self.context)

    def length(self, utterance: Utterance) -> int:
        """Return the frames of an utterance's longest modality."""
        return self._lengths[utterance.id]

    def place(self, utterance: Utterance) -> int:
        """Return the place of an utterance in the corpus."""
        return self._places[utterance.id]

    @cached_property
    def digest(self) -> str:
        """A hash of the rows of the corpus and of all features of the utterances."""
        digest = hashlib.sha256(repr((self.corpus.classes, self.utterances)).encode())
        if self.target != EMOTION:
            known = [self.targets.value(utterance) for utterance in self.utterances]
            digest.update(repr((self.target, known)).encode())
        if self.context:
            digest.update(repr(self.context).encode())
        for modality, entry in sorted(self.entries.items()):
            digest.update(f"{modality} {entry.spec.key}".encode())
            for utterance in self.readable:
                digest.update(entry.checksum(utterance.id).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {utterance.id: place for place, utterance in enumerate(self.corpus.utterances)}

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {
            utterance.id: max(entry.length(utterance.id) for entry in self.entries.values())
            for utterance in self.readable
        }


def find_examples(
    cache: str | Path,
    dataset: str,
    encoders: Mapping[str, str | None],
    classes: str | None = None,
    context: bool = False,
    target: tuple[str, ...] = EMOTION,
    mapped: ClassMap | None = None,
) -> TrainingExamples:
    """Open the entries of a dataset and select the utterances that can be trained on.

    Args:
        cache: folder or URL of the cache.
        dataset: name of the dataset.
        encoders: modality → name, folder or key of its encoder; ``None`` if there is only one.
        classes: name of the class set, if the corpus has several.
        context: also select the turns that can only be context.
        target: the names of the targets.
        mapped: the classes, instead of those of the corpus.

    Raises:
        CacheError: the cache does not hold the features, or holds those of several encoders.
        UsageError: the cache does not hold the dataset, the corpus does not have the class set or
            the target, or has one class alone, or a folder that is given as an encoder does not
            hold one.
        PipelineError: the cache is empty, or all utterances are excluded.
    """
    features = FeatureCache(cache)
    require_dataset(features, dataset)
    entries = {
        modality: features.open(dataset, encoder, modality=modality)
        for modality, encoder in encoders.items()
    }
    newest = max(entries.values(), key=lambda entry: entry.published)
    manifest = features.read_manifest(dataset, newest.manifest)
    whole, audio_hashes = from_table(manifest)
    require_known(target, dataset, lambda: {a for u in whole.utterances for a in u.attributes})
    whole = replace(whole, notes=(*whole.notes, *_emotion_notes(entries)))
    hashes = {
        modality: content_hashes(manifest, MODALITIES[modality].source)
        for modality in entries
        if modality in MODALITIES
    }
    corpus = whole.in_classes(classes) if mapped is None else mapped.applied(whole, dataset)
    if set(EMOTION) <= set(target) and len(corpus.classes) == 1:
        raise UsageError(
            f"{dataset} has one class alone, '{corpus.classes[0]}', so nothing can be learned: "
            "correct the labels, and run 'mser extract' or 'mser cache import' again"
        )
    targets = Targets(target, corpus.classes)
    excluded, turns = {}, []
    for utterance, unmerged in zip(corpus.utterances, whole.utterances, strict=True):
        unknown_target = _unknown(utterance, unmerged, targets, classes is not None)
        reason = unknown_target or _unreadable(utterance, entries, hashes)
        if reason:
            excluded[utterance.id] = reason
        # A turn without its features is absent from the dialogue.
        in_dialogue = context and unknown_target and utterance.dialogue is not None
        if in_dialogue and _unreadable(utterance, entries, hashes) is None:
            turns.append(utterance)
    utterances = tuple(u for u in corpus.utterances if u.id not in excluded)
    if not utterances:
        raise PipelineError(
            f"none of the {len(corpus.utterances)} utterances of {dataset} can be trained on "
            f"({next(iter(excluded.values()), 'the corpus is empty')}): correct this, and run "
            "'mser extract' or 'mser cache import' again"
        )
    return TrainingExamples(
        corpus, entries, utterances, excluded, audio_hashes, features, tuple(turns), target
    )


def _pooled(cache: FeatureCache, modality: str, entry: Entry) -> Entry:
    if isinstance(entry, JoinedEntry):
        each = {name: _pooled(cache, modality, own) for name, own in entry.of_corpus.items()}
        return JoinedEntry(each)
    count = missing_pooled(cache, entry)
    with progress(count, f"pooling {modality}", "utterance") as bar:
        return pooled_entry(cache, entry, bar.update)


def _unknown(
    utterance: Utterance, unmerged: Utterance, targets: Targets, in_classes: bool
) -> str | None:
    """Return why the target of an utterance is not known; ``None`` if it is.

    ``in_classes``: the user chose a class set, so attributes alone also need a label in it.
    """
    of_classes = targets.over_classes == "emotion" or (in_classes and not targets.over_classes)
    if of_classes and utterance.label is None and unmerged.label is not None:
        return f"its label '{unmerged.label}' is not in any of the classes"
    if of_classes and utterance.label is None:
        return "it has no label"
    if targets.over_classes in ("votes", "labels") and unmerged.votes and not utterance.votes:
        return "its votes are for none of the classes"
    return targets.missing(utterance)


def _emotion_notes(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a note for each encoder whose card tells of emotion labels; see ``model_card``."""
    for modality, entry in entries.items():
        for run in entry.provenance[-1:]:
            if labels := run.get("emotion_labels"):
                yield (
                    f"the {modality} encoder {entry.spec.encoder} was trained on emotion labels, "
                    f"by its card ({', '.join(labels)}): it may have seen the test utterances"
                )


def _unreadable(
    utterance: Utterance,
    entries: Mapping[str, Entry],
    hashes: Mapping[str, Mapping[str, str | None]],
) -> str | None:
    """Return why the features of an utterance cannot be used; ``None`` if they can.

    ``hashes`` are those of the newest manifest: modality → utterance id → hash.
    """
    for modality, entry in entries.items():
        if utterance.id in entry.quarantine:
            return f"{modality}: {entry.quarantine[utterance.id].reason}"
        if utterance.id not in entry:
            return f"{modality}: not extracted yet"
        if entry.spec.identity.get("source") == "imported":
            continue  # these hashes are of the features: the content they were made from is unknown
        current = hashes.get(modality, {}).get(utterance.id)
        if isinstance(source := source_of(utterance, modality), str):
            current = hashlib.sha256(source.encode()).hexdigest()
        if current is not None and entry.content_hash(utterance.id) != current:
            return f"{modality}: changed since it was extracted"
    return None
