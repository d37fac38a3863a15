"""Protocols: which utterances train, which choose the epoch, which are the test.

The validation part never comes from the test part: it is the corpus's own where the protocol has
one, and otherwise cut from the training part by whole dialogues, or by whole speakers where the
protocol keeps speakers apart throughout. Where a single speaker is the test, it is what the
partners of that speaker say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from ..corpora import Utterance
from ..errors import PipelineError, UsageError, unknown

VALIDATION_SHARE = 0.15
SPEAKER_FOLDS = 5
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
    what the head learns or is chosen from, ``apart`` those that never occur both in the training
    and in the validation part. ``validated`` stands for ``disjoint`` between the validation and the
    test part, where these may share more.
    """

    divide: Callable[[Sequence[Utterance]], Iterator[Fold]]
    disjoint: tuple[str, ...]
    apart: tuple[str, ...] = ("id", "dialogue")
    validated: tuple[str, ...] | None = None


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
        _check(fold, chosen)
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


def _leave_one_speaker_out(utterances: Sequence[Utterance]) -> Iterator[Fold]:
    """Test each speaker once, and validate on the others of the speaker's sessions.

    They are of the same dialogues, so they train nothing.
    """
    name = "leave-one-speaker-out"
    _require(utterances, "speaker", name)
    _require(utterances, "session", name)
    for speaker in sorted({str(one.speaker) for one in utterances}):
        test = tuple(one for one in utterances if one.speaker == speaker)
        sessions = {one.session for one in test}
        train = tuple(one for one in utterances if one.session not in sessions)
        validation = tuple(
            one for one in utterances if one.session in sessions and one.speaker != speaker
        )
        if not validation:
            raise UsageError(
                f"protocol '{name}' validates on the others of a session, and in that of "
                f"'{speaker}' there is nobody else: choose leave-one-session-out"
            )
        yield Fold(speaker, train, validation, test)


def _speaker_folds(utterances: Sequence[Utterance]) -> Iterator[Fold]:
    """Test each speaker once, in five folds of about equal size, the same in whatever order."""
    _require(utterances, "speaker", "speaker-folds")
    speakers = [str(one.speaker) for one in utterances]
    if len(set(speakers)) < SPEAKER_FOLDS:
        raise UsageError(
            f"protocol 'speaker-folds' divides by {SPEAKER_FOLDS} speakers or more, and this "
            f"corpus has {len(set(speakers))}: choose another of {', '.join(sorted(PROTOCOLS))}"
        )
    splitter = GroupKFold(SPEAKER_FOLDS)
    for number, (rest, tested) in enumerate(splitter.split(utterances, groups=speakers), 1):
        train, validation = _cut([utterances[at] for at in rest], by="speaker")
        yield Fold(f"fold{number}", train, validation, tuple(utterances[at] for at in tested))


PROTOCOLS = {
    "official": Protocol(_official, ("id", "dialogue")),
    "leave-one-session-out": Protocol(
        _leave_one_session_out, ("id", "dialogue", "speaker", "session")
    ),
    "leave-one-speaker-out": Protocol(
        _leave_one_speaker_out,
        ("id", "dialogue", "speaker", "session"),
        ("id", "dialogue", "session"),
        validated=("id", "speaker"),
    ),
    # Not the dialogue: where speakers talk to each other, no division by speaker keeps it whole.
    "speaker-folds": Protocol(_speaker_folds, ("id", "speaker"), ("id", "speaker")),
}


def _require(utterances: Sequence[Utterance], column: str, protocol: str) -> None:
    if any(getattr(one, column) is None for one in utterances):
        raise UsageError(
            f"protocol '{protocol}' divides by {column}, which this corpus does not give: "
            f"choose another of {', '.join(sorted(PROTOCOLS))}"
        )


def _cut(
    utterances: Sequence[Utterance], by: str = "dialogue"
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Cut a validation part from a training part by whole dialogues, or whole speakers."""
    groups: list[Any] = [
        one.id if getattr(one, by) is None else getattr(one, by) for one in utterances
    ]
    if len(set(groups)) < 2:
        raise PipelineError(f"a training part of one {by} leaves no {by} for validation")
    splitter = GroupShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=_SPLIT_SEED)
    train, validation = next(splitter.split(utterances, groups=groups))
    return tuple(utterances[at] for at in train), tuple(utterances[at] for at in validation)


def _check(fold: Fold, protocol: Protocol) -> None:
    parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    for name, part in parts.items():
        if not part:
            raise PipelineError(f"the {name} part of fold '{fold.name}' is empty")
    validated = protocol.disjoint if protocol.validated is None else protocol.validated
    # Training and validation may share more than the training and the test part do.
    promised = {
        ("train", "validation"): protocol.apart,
        ("train", "test"): protocol.disjoint,
        ("validation", "test"): validated,
    }
    for (name, other), columns in promised.items():
        for column in columns:
            shared = {getattr(one, column) for one in parts[name]} - {None}
            shared &= {getattr(one, column) for one in parts[other]}
            if shared:
                raise PipelineError(
                    f"fold '{fold.name}' leaks: {name} and {other} share the {column} "
                    f"'{min(shared)}'"
                )
