"""Small corpora with only the fields that protocols read."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mser.pipeline.corpora import Utterance
from mser.pipeline.protocols.folds import Fold
from mser.pipeline.protocols.leakage import check_leakage
from mser.pipeline.protocols.protocols import split_corpus


def utterance(id: str, **fields: Any) -> Utterance:
    """An utterance in which the fields that are not given are ``None``."""
    names = ("audio", "text", "speaker", "session", "dialogue", "turn", "split")
    empty: dict[str, Any] = dict.fromkeys(names)
    return Utterance(**{**empty, "id": id, "label": "neutral", **fields})


def dialogues(sizes: Iterable[int], name: str = "", **fields: Any) -> list[Utterance]:
    """Dialogues of the given numbers of utterances."""
    return [
        utterance(f"{name}dia{n}_utt{turn}", dialogue=f"{name}dia{n}", turn=turn, **fields)
        for n, size in enumerate(sizes)
        for turn in range(size)
    ]


def sessions(*sizes: Iterable[int]) -> list[Utterance]:
    """Sessions of such dialogues, with two speakers each."""
    return [
        replace(turn, speaker=f"{turn.session}_{'fm'[(turn.turn or 0) % 2]}")
        for n, of_session in enumerate(sizes, 1)
        for turn in dialogues(of_session, f"ses{n}_", session=f"ses{n}")
    ]


def official(validation: bool = True) -> list[Utterance]:
    """A corpus with splits, in which speakers are in several splits, as in MELD."""
    splits = {"train": 10, "validation": 3, "test": 4}
    return [
        utterance
        for split, count in splits.items()
        if validation or split != "validation"
        for utterance in dialogues(count * [3], f"{split}/", split=split, speaker="Joey")
    ]


def ids(part: Iterable[Utterance]) -> set[str]:
    return {utterance.id for utterance in part}


def column(part: Iterable[Utterance], name: str) -> set[object]:
    return {getattr(utterance, name) for utterance in part}


def parts(fold: Fold) -> tuple[tuple[Utterance, ...], ...]:
    return fold.train, fold.validation, fold.test


def actors(sizes: Iterable[int]) -> list[Utterance]:
    """Speakers of the given numbers of utterances each, without dialogues."""
    return [
        utterance(f"{1001 + actor}_{n}", speaker=f"{1001 + actor}")
        for actor, size in enumerate(sizes)
        for n in range(size)
    ]


def changed(corpus: list[Utterance], index: int, **fields: Any) -> list[Utterance]:
    """The corpus with other fields in one utterance."""
    return [*corpus[:index], replace(corpus[index], **fields), *corpus[index + 1 :]]


def check_each_is_tested_once(corpus: list[Utterance], folds: list[Fold]) -> None:
    """Every fold contains the whole corpus, and every utterance is in one test part."""
    everything = sorted(utterance.id for utterance in corpus)
    assert sorted(utterance.id for fold in folds for utterance in fold.test) == everything
    for fold in folds:
        assert sorted(utterance.id for part in parts(fold) for utterance in part) == everything


def make_folds(
    utterances: Sequence[Utterance], protocol: str, validation: str | None = None
) -> list[Fold]:
    """Split by a protocol, and run the leakage check."""
    splits = split_corpus(utterances, protocol, validation=validation)
    check_leakage(splits.folds, splits.disjoint_columns)
    return list(splits.folds)
