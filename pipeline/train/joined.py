"""The examples of several corpora as those of one: ids are ``CORPUS/ID``."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...cache import Entry
from ..corpora import Corpus, Utterance
from ..corpora.class_map import ClassMap
from ..errors import PipelineError, UsageError
from ..protocols.across import NAME
from .examples import TrainingExamples, find_examples
from .joined_entry import JoinedEntry


def find_joined(
    cache: Any,
    train_on: Iterable[str],
    test_on: Iterable[str],
    encoders: Mapping[str, str | None],
    mapped: ClassMap,
    context: bool = False,
) -> TrainingExamples:
    """Return the examples of training and test corpora, with the classes of a map.

    See :func:`.find_examples` for the arguments.

    Raises:
        CacheError, PipelineError: see :func:`.find_examples`.
        UsageError: see there; or the corpora have features of different encoders.
        PipelineError: no utterance of the training corpora has a label of one of the classes.
    """
    train_on = list(train_on)
    found = {
        name: find_examples(cache, name, encoders, context=context, mapped=mapped)
        for name in dict.fromkeys((*train_on, *test_on))
    }
    for modality in encoders:
        _require_same_encoder({n: each.entries[modality] for n, each in found.items()}, modality)
    labels = {u.label for name in train_on for u in found[name].utterances}
    for name in mapped.classes:
        if name not in labels:
            raise PipelineError(
                f"no utterance of {', '.join(train_on)} is of the class '{name}': give a "
                "--class-map without it, or more corpora in --train-on"
            )
    corpus = Corpus(
        "+".join(train_on),
        [utterance for name, each in found.items() for utterance in _prefixed(each, name)],
        mapped.classes,
        NAME,
        notes=tuple(dict.fromkeys(note for each in found.values() for note in each.corpus.notes)),
    )
    chosen = {f"{name}/{u.id}" for name, each in found.items() for u in each.utterances}
    turns = {f"{name}/{u.id}" for name, each in found.items() for u in each.context}
    return TrainingExamples(
        corpus,
        {m: JoinedEntry({n: each.entries[m] for n, each in found.items()}) for m in encoders},
        tuple(utterance for utterance in corpus.utterances if utterance.id in chosen),
        {f"{n}/{id}": why for n, each in found.items() for id, why in each.excluded.items()},
        {f"{n}/{id}": sha for n, each in found.items() for id, sha in each.audio_hashes.items()},
        next(iter(found.values())).cache,
        tuple(utterance for utterance in corpus.utterances if utterance.id in turns),
    )


def _prefixed(examples: TrainingExamples, name: str) -> list[Utterance]:
    """Return the utterances of a corpus with its name before each id: 1 is a speaker in many."""

    def prefixed(value: str | None) -> str | None:
        return None if value is None else f"{name}/{value}"

    return [
        replace(
            utterance,
            id=f"{name}/{utterance.id}",
            speaker=prefixed(utterance.speaker),
            session=prefixed(utterance.session),
            dialogue=prefixed(utterance.dialogue),
        )
        for utterance in examples.corpus.utterances
    ]


def _require_same_encoder(entries: Mapping[str, Entry], modality: str) -> None:
    (first, entry), *others = entries.items()
    for name, other in others:
        if other.spec.key != entry.spec.key:
            raise UsageError(
                f"the {modality} features of {first} are by {entry.spec.encoder} (key "
                f"{entry.spec.key}), those of {name} by {other.spec.encoder} (key "
                f"{other.spec.key}): extract both with the same encoder and settings, or give "
                f"--{modality}-encoder"
            )
