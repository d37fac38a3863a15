"""Protocols: which utterances train, which choose the epoch, which are the test.

The validation part never comes from the test part: it is the corpus's own where the protocol has
one, and otherwise cut from the training part by whole dialogues.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sklearn.model_selection import GroupShuffleSplit

from ..corpora import Utterance
from ..errors import PipelineError, UsageError, unknown

VALIDATION_SHARE = 0.15
_SPLIT_SEED = 0  # the same parts for every seed, so that seeds differ by the training alone


@dataclass(frozen=True)
class Fold:
    """Three parts of a corpus that share no utterance."""

    name: str
    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]


@dataclass(frozen=True)
class Protocol:
    """How to divide a corpus, and what the parts of a fold must not share.

    ``disjoint`` names fields of an utterance whose values never occur both in the test part and in
    what the head learns or is chosen from.
    """

    divide: Callable[[Sequence[Utterance]], Iterator[Fold]]
    disjoint: tuple[str, ...]


def make_folds(utterances: Sequence[Utterance], protocol: str) -> list[Fold]:
    """Divide ``utterances`` by a protocol, and check that its parts are disjoint as it promises.

    Raises:
        UsageError: there is no such protocol, or the corpus lacks what it divides by.
        PipelineError: a part is empty, or two parts share what they must not.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    chosen = PROTOCOLS[protocol]
    folds = list(chosen.divide(utterances))
    for fold in folds:
        _check(fold, chosen.disjoint)
    return folds


def _official(utterances: Sequence[Utterance]) -> Iterator[Fold]:
    _require(utterances, "split", "official")
    train, validation, test = (
        tuple(one for one in utterances if one.split == split)
        for split in ("train", "validation", "test")
    )
    if not validation:
        train, validation = _cut(train)
    yield Fold("official", train, validation, test)


def _leave_one_session_out(utterances: Sequence[Utterance]) -> Iterator[Fold]:
    _require(utterances, "session", "leave-one-session-out")
    for session in sorted({str(one.session) for one in utterances}):
        train, validation = _cut([one for one in utterances if one.session != session])
        test = tuple(one for one in utterances if one.session == session)
        yield Fold(session, train, validation, test)


PROTOCOLS = {
    "official": Protocol(_official, ("id", "dialogue")),
    "leave-one-session-out": Protocol(
        _leave_one_session_out, ("id", "dialogue", "speaker", "session")
    ),
}


def _require(utterances: Sequence[Utterance], column: str, protocol: str) -> None:
    if any(getattr(one, column) is None for one in utterances):
        raise UsageError(
            f"protocol '{protocol}' divides by {column}, which this corpus does not give: "
            f"choose another of {', '.join(sorted(PROTOCOLS))}"
        )


def _cut(
    utterances: Sequence[Utterance],
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Cut a validation part from a training part by whole dialogues."""
    groups: list[Any] = [one.dialogue if one.dialogue is not None else one.id for one in utterances]
    if len(set(groups)) < 2:
        raise PipelineError("a training part of one dialogue leaves no dialogue for validation")
    splitter = GroupShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=_SPLIT_SEED)
    train, validation = next(splitter.split(utterances, groups=groups))
    return tuple(utterances[at] for at in train), tuple(utterances[at] for at in validation)


def _check(fold: Fold, disjoint: Sequence[str]) -> None:
    parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    for name, part in parts.items():
        if not part:
            raise PipelineError(f"the {name} part of fold '{fold.name}' is empty")
    for (name, part), (other, rest) in combinations(parts.items(), 2):
        # Training and validation may share speakers and sessions: the validation part is cut from
        # the training part by dialogue. The test part shares nothing with either.
        columns = disjoint if other == "test" else [c for c in disjoint if c in ("id", "dialogue")]
        for column in columns:
            shared = {getattr(one, column) for one in part} & {getattr(one, column) for one in rest}
            if shared - {None}:
                raise PipelineError(
                    f"fold '{fold.name}' leaks: {name} and {other} share the {column} "
                    f"'{min(shared - {None})}'"
                )
