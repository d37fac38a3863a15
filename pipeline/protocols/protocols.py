"""Protocols: which utterances train, which choose the epoch, which are the test.

The validation part never comes from the test part: it is the corpus's own, or the split file's,
where there is one, and otherwise cut from the training part by whole dialogues, or by whole
speakers where the protocol keeps speakers apart throughout. Where a single speaker is the test, it
is what the partners of that speaker say.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sklearn.model_selection import GroupKFold

from ..corpora import Utterance
from ..errors import PipelineError, UsageError, unknown
from .folds import PAIRS, PARTS, Fold, Pair, Splits, cut_validation, value_of
from .split_matching import split_by_file

__all__ = ["PROTOCOLS", "Protocol", "split_corpus"]

SPEAKER_FOLDS = 5
# What a corpus can be divided by: not the label, since every part needs all of them.
_COLUMNS = ("speaker", "session", "dialogue", "text", "id")


@dataclass(frozen=True)
class Asked:
    """What is to be divided: ``protocol`` as it was written, ``argument`` behind its first colon.

    ``corpus`` has the utterances that cannot be trained on as well.
    """

    protocol: str
    argument: str
    utterances: Sequence[Utterance]
    corpus: Sequence[Utterance]


@dataclass(frozen=True)
class Protocol:
    """How to divide a corpus, and the form of its argument with an example, if it wants one."""

    split: Callable[[Asked], Splits]
    argument: str | None = None


def split_corpus(
    utterances: Sequence[Utterance], protocol: str, corpus: Sequence[Utterance] | None = None
) -> Splits:
    """Divide ``utterances`` by a protocol; whether it leaks is for ``check_leakage`` to say.

    ``corpus`` has all utterances, those that cannot be trained on too, so that a split file's names
    can be told apart from names that are unknown.

    Raises:
        UsageError: there is no such protocol, its argument is wrong, or the corpus lacks what it
            divides by.
        PipelineError: a part is empty, or a split file cannot be understood.
    """
    name, colon, argument = protocol.partition(":")
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    chosen = PROTOCOLS[name]
    if chosen.argument is not None and not argument:
        raise UsageError(f"protocol '{protocol}' wants to know more: write {chosen.argument}")
    if chosen.argument is None and colon:
        raise UsageError(f"protocol '{protocol}' takes nothing behind a colon: write {name}")
    asked = Asked(protocol, argument, utterances, utterances if corpus is None else corpus)
    splits = chosen.split(asked)
    for fold in splits.folds:
        for part in PARTS:
            if not fold.part(part):
                raise PipelineError(
                    f"the {part} part of fold '{fold.name}' is empty: choose another protocol"
                )
    return splits


def _official(asked: Asked) -> Splits:
    _require(asked, "split")
    train, validation, test = (
        tuple(one for one in asked.utterances if one.split == split) for split in PARTS
    )
    if not validation and train:
        train, validation = cut_validation(train)
    fold = Fold("official", train, validation, test)
    return Splits((fold,), _disjoint_columns(("id", "dialogue"), ("id", "dialogue")))


def _leave_one_session_out(asked: Asked) -> Splits:
    _require(asked, "session")
    return Splits(
        tuple(_each_tested(asked, "session")),
        _disjoint_columns(("id", "dialogue", "speaker", "session"), ("id", "dialogue")),
    )


def _leave_one_speaker_out(asked: Asked) -> Splits:
    """Test each speaker once, and validate on the others of the speaker's sessions.

    They are of the same dialogues, so they train nothing.
    """
    _require(asked, "speaker")
    _require(asked, "session")
    utterances = asked.utterances
    folds = []
    for speaker in sorted({str(one.speaker) for one in utterances}):
        test = tuple(one for one in utterances if one.speaker == speaker)
        sessions = {one.session for one in test}
        near = [one for one in utterances if one.session in sessions]
        train = tuple(one for one in utterances if one.session not in sessions)
        validation = tuple(one for one in near if one.speaker != speaker)
        if not validation:
            raise UsageError(
                f"protocol '{asked.protocol}' validates on the others of a session, and in that "
                f"of '{speaker}' there is nobody else: choose leave-one-session-out"
            )
        folds.append(Fold(speaker, train, validation, test))
    return Splits(
        tuple(folds),
        _disjoint_columns(
            ("id", "dialogue", "speaker", "session"),
            ("id", "dialogue", "session"),
            validated=("id", "speaker"),
        ),
    )


def _speaker_folds(asked: Asked) -> Splits:
    return _in_folds(asked, "speaker", SPEAKER_FOLDS)


def _group_folds(asked: Asked) -> Splits:
    column, colon, number = asked.argument.partition(":")
    _check_column(asked, column)
    if not colon or not re.fullmatch("[0-9]{1,6}", number) or int(number) < 2:
        raise UsageError(
            f"protocol '{asked.protocol}' does not say how many folds, 2 or more: write "
            f"group-folds:{column}:10"
        )
    return _in_folds(asked, column, int(number))


def _in_folds(asked: Asked, column: str, number: int) -> Splits:
    """Test each group once, in folds of about equal size, the same in whatever order."""
    _require(asked, column)
    utterances = asked.utterances
    groups = [str(value_of(one, column)) for one in utterances]
    if len(set(groups)) < number:
        raise UsageError(
            f"protocol '{asked.protocol}' divides by {number} {column}s or more, and this corpus "
            f"has {len(set(groups))}: choose another protocol"
        )
    by = _validated_by(column)
    folds = []
    for at, (rest, tested) in enumerate(GroupKFold(number).split(utterances, groups=groups), 1):
        train, validation = cut_validation([utterances[index] for index in rest], by)
        test = tuple(utterances[index] for index in tested)
        folds.append(Fold(f"fold{at}", train, validation, test))
    return Splits(tuple(folds), _disjoint_columns(_kept_whole(column), ("id", by)))


def _hold_out(asked: Asked) -> Splits:
    column, equals, value = asked.argument.partition("=")
    _check_column(asked, column)
    if not equals:
        raise UsageError(
            f"protocol '{asked.protocol}' does not say which {column} is the test: write "
            f"hold-out:{column}=VALUE"
        )
    _require(asked, column)
    held = _value_meant(value, column, {str(value_of(one, column)) for one in asked.utterances})
    by = _validated_by(column)
    (fold,) = _each_tested(asked, column, [held], by)
    return Splits((fold,), _disjoint_columns(_kept_whole(column), ("id", by)))


def _by_file(asked: Asked) -> Splits:
    return split_by_file(Path(asked.argument).expanduser(), asked.utterances, asked.corpus)


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(_official),
    "leave-one-session-out": Protocol(_leave_one_session_out),
    "leave-one-speaker-out": Protocol(_leave_one_speaker_out),
    "speaker-folds": Protocol(_speaker_folds),
    "group-folds": Protocol(_group_folds, "group-folds:COLUMN:K, such as group-folds:speaker:10"),
    "hold-out": Protocol(_hold_out, "hold-out:COLUMN=VALUE, such as hold-out:session=Ses05"),
    "file": Protocol(_by_file, "file:PATH, such as file:folds.json"),
}


def _each_tested(
    asked: Asked, column: str, values: Iterable[str] | None = None, by: str = "dialogue"
) -> Iterator[Fold]:
    """Yield a fold for each value of a column, or those of ``values``, that has it as its test."""
    if values is None:
        values = sorted({str(value_of(one, column)) for one in asked.utterances})
    for value in values:
        rest = [one for one in asked.utterances if value_of(one, column) != value]
        test = tuple(one for one in asked.utterances if value_of(one, column) == value)
        if not rest:
            raise PipelineError(
                f"every utterance has the {column} '{value}', which leaves none to train on: "
                "choose another protocol"
            )
        train, validation = cut_validation(rest, by)
        yield Fold(value, train, validation, test)


def _disjoint_columns(
    tested: tuple[str, ...], apart: tuple[str, ...], validated: tuple[str, ...] | None = None
) -> dict[Pair, tuple[str, ...]]:
    """Say what training and validation part, and what each of them and the test part never share.

    ``validated`` is for the validation and the test part, where these may share more.
    """
    return dict(zip(PAIRS, (apart, tested, validated or tested), strict=True))


def _kept_whole(column: str) -> tuple[str, ...]:
    """Say what a test part never shares where it is whole values of a column.

    Speakers talk to each other, so no splits by speaker keeps a dialogue whole.
    """
    return ("id", "dialogue", "session") if column == "session" else ("id", column)


def _validated_by(column: str) -> str:
    """Say what a validation part is cut by: the column kept apart, if it is not above dialogues."""
    return column if column in ("speaker", "text") else "dialogue"


def _check_column(asked: Asked, column: str) -> None:
    if column in ("label", "turn", "audio", "split"):
        raise UsageError(
            f"protocol '{asked.protocol}': a corpus cannot be divided by {column}: choose "
            f"{', '.join(_COLUMNS)}"
        )
    if column not in _COLUMNS:
        raise unknown("column to divide by", column, _COLUMNS)


def _value_meant(given: str, column: str, values: set[str]) -> str:
    """Find a value by its name, or by its number where one alone ends in it: 5 is Ses05."""
    name = given.strip().casefold() if column == "text" else given
    if name in values:
        return name
    numbered = [
        value
        for value in values
        if (digits := re.search("[0-9]+$", value)) and digits[0].lstrip("0") == name.lstrip("0")
    ]
    if len(numbered) == 1 and name.isdecimal():
        return numbered[0]
    nearest = get_close_matches(name, values, n=20, cutoff=0.0)
    rest = f", {len(nearest)} of {len(values)}" if len(nearest) < len(values) else ""
    raise unknown(f"{column} (of this corpus{rest})", given, nearest)


def _require(asked: Asked, column: str) -> None:
    without = [one.id for one in asked.utterances if value_of(one, column) is None]
    if not without:
        return
    given = [
        name
        for name in ("split", *_COLUMNS)
        if name != "id" and all(value_of(one, name) is not None for one in asked.utterances)
    ]
    lacking = "which this corpus does not give"
    if len(without) < len(asked.utterances):
        lacking += f" for {len(without)} of {len(asked.utterances)} utterances ('{without[0]}')"
    raise UsageError(
        f"protocol '{asked.protocol}' divides by {column}, {lacking}: choose another, by "
        f"{' or '.join(given) or 'id'}"
    )
