"""Small corpora of which only what a protocol looks at is said."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mser.pipeline.corpora import Utterance
from mser.pipeline.protocols.folds import Fold
from mser.pipeline.protocols.leakage import check_leakage
from mser.pipeline.protocols.protocols import split_corpus


def utterance(id: str, **fields: Any) -> Utterance:
    """An utterance of which only what a protocol looks at is said."""
    empty: dict[str, Any] = dict.fromkeys(Utterance.__dataclass_fields__)
    return Utterance(**{**empty, "id": id, "label": "neutral", **fields})


def dialogues(sizes: Iterable[int], name: str = "", **fields: Any) -> list[Utterance]:
    """Dialogues of so many utterances."""
    return [
        utterance(f"{name}dia{n}_utt{turn}", dialogue=f"{name}dia{n}", turn=turn, **fields)
        for n, size in enumerate(sizes)
        for turn in range(size)
    ]


def sessions(*sizes: Iterable[int]) -> list[Utterance]:
    """Sessions of such dialogues, two speakers each."""
    return [
        replace(one, speaker=f"{one.session}_{'fm'[(one.turn or 0) % 2]}")
        for n, of_session in enumerate(sizes, 1)
        for one in dialogues(of_session, f"ses{n}_", session=f"ses{n}")
    ]


def official(validation: bool = True) -> list[Utterance]:
    """A corpus with splits; speakers are in all of them, as in MELD."""
    splits = {"train": 10, "validation": 3, "test": 4}
    return [
        one
        for split, count in splits.items()
        if validation or split != "validation"
        for one in dialogues(count * [3], f"{split}/", split=split, speaker="Joey")
    ]


def ids(part: Iterable[Utterance]) -> set[str]:
    return {one.id for one in part}


def column(part: Iterable[Utterance], name: str) -> set[object]:
    return {getattr(one, name) for one in part}


def parts(fold: Fold) -> tuple[tuple[Utterance, ...], ...]:
    return fold.train, fold.validation, fold.test


def actors(sizes: Iterable[int]) -> list[Utterance]:
    """Speakers of so many utterances each, who speak to nobody."""
    return [
        utterance(f"{1001 + n}_{at}", speaker=f"{1001 + n}")
        for n, size in enumerate(sizes)
        for at in range(size)
    ]


def changed(corpus: list[Utterance], at: int, **fields: Any) -> list[Utterance]:
    return [replace(one, **fields) if n == at else one for n, one in enumerate(corpus)]


def check_each_is_tested_once(corpus: list[Utterance], folds: list[Fold]) -> None:
    """Every fold holds the whole corpus, and every utterance is in one test part."""
    everybody = sorted(one.id for one in corpus)
    assert sorted(one.id for fold in folds for one in fold.test) == everybody
    for fold in folds:
        assert sorted(one.id for part in parts(fold) for one in part) == everybody


def make_folds(utterances: Sequence[Utterance], protocol: str) -> list[Fold]:
    """Divide by a protocol, and check that the parts are disjoint as it promises."""
    splits = split_corpus(utterances, protocol)
    check_leakage(splits.folds, splits.disjoint_columns)
    return list(splits.folds)
