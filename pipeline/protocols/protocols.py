"""Protocols: which utterances are for training, for validation (choice of the epoch) and for test.

The validation part never comes from the test part. It is that of the corpus or of the split file,
if there is one. Otherwise it is cut from the training part by whole values of a column: the one
that the user chooses, or by default dialogues, or speakers if the protocol keeps speakers apart in
all parts. If the test part is a single speaker of a corpus with sessions, the validation part is by
default the other speakers of that speaker's sessions.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..corpora import Utterance
from ..errors import PipelineError, UsageError, unknown
from .folds import PAIRS, PARTS, VALIDATIONS, Fold, Pair, Splits, cut_validation, value_of
from .split_matching import split_by_file

__all__ = ["PROTOCOLS", "Protocol", "split_corpus"]

SPEAKER_FOLDS = 5
# The columns by which a corpus can be split; not the label, because every part needs all labels.
_COLUMNS = ("speaker", "session", "dialogue", "text", "id")


@dataclass(frozen=True)
class SplitRequest:
    """The arguments of a split.

    ``protocol`` is the full name as it was given, and ``argument`` the part after its first colon.
    ``utterances`` are split; ``corpus`` also contains the utterances that cannot be trained on.
    ``validation`` is the column by which the user wants the validation part cut, if any.
    """

    protocol: str
    argument: str
    utterances: Sequence[Utterance]
    corpus: Sequence[Utterance]
    validation: str | None = None

    def cut_by(self, default: str) -> str:
        """Return the column by which the validation part is cut."""
        return self.validation or default

    def not_default(self, default: str) -> str | None:
        """Return the column that the user wants, unless it is the default."""
        return None if self.validation == default else self.validation


@dataclass(frozen=True)
class Protocol:
    """A function that splits a corpus, and the form of its argument with an example, if any."""

    split: Callable[[SplitRequest], Splits]
    argument: str | None = None


def split_corpus(
    utterances: Sequence[Utterance],
    protocol: str,
    corpus: Sequence[Utterance] | None = None,
    validation: str | None = None,
) -> Splits:
    """Split ``utterances`` by a protocol. ``check_leakage`` checks the result.

    ``corpus`` contains all utterances, also those that cannot be trained on: a split file may name
    these without being wrong. ``validation`` is a column in ``VALIDATIONS``, by whose whole values
    the validation part is cut from the training part; ``None`` is the protocol's own rule.

    Raises:
        UsageError: there is no such protocol, its argument is wrong, the corpus lacks a column by
            which it is split, or ``validation`` is given though there is a validation part.
        PipelineError: a part is empty, or a split file is wrong.
    """
    name, colon, argument = protocol.partition(":")
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    chosen = PROTOCOLS[name]
    if chosen.argument is not None and not argument:
        raise UsageError(f"protocol '{protocol}' needs an argument: write {chosen.argument}")
    if chosen.argument is None and colon:
        raise UsageError(f"protocol '{protocol}' takes no argument: write {name}")
    request = SplitRequest(
        protocol, argument, utterances, utterances if corpus is None else corpus, validation
    )
    if validation is not None:
        if validation not in VALIDATIONS:
            raise unknown("validation", validation, VALIDATIONS)
        _require(request, validation, f"validation by {validation}")
    splits = chosen.split(request)
    for fold in splits.folds:
        for part in PARTS:
            if not fold.part(part):
                raise PipelineError(
                    f"the {part} part of fold '{fold.name}' is empty: choose another protocol"
                )
    return splits


def _official(request: SplitRequest) -> Splits:
    """Use the corpus's own splits; a corpus with several test parts has a fold for each of them.

    The folds then have the same training and validation parts, and the names of the test parts.
    """
    _require(request, "split")
    parts = {
        split: tuple(utterance for utterance in request.utterances if utterance.split == split)
        for split in sorted({str(utterance.split) for utterance in request.utterances})
    }
    train, validation = parts.pop("train", ()), parts.pop("validation", ())
    by = request.cut_by("dialogue")
    if validation and request.validation:
        raise UsageError(
            f"validation by {by} cuts a validation part, but the corpus has its own: leave out "
            "--validation"
        )
    if not validation and train:
        train, validation = cut_validation(train, by)
    named = parts if len(parts) > 1 else {"official": next(iter(parts.values()), ())}
    folds = tuple(Fold(name, train, validation, test) for name, test in named.items())
    disjoint = _disjoint_columns(("id", "dialogue"), _kept_whole(by))
    return Splits(folds, disjoint, validation=request.not_default("dialogue"))


def _leave_one_session_out(request: SplitRequest) -> Splits:
    """Test each session once; by default, validate on whole dialogues of the others."""
    _require(request, "session")
    by = request.cut_by("dialogue")
    return Splits(
        tuple(_each_tested(request, "session", by=by)),
        _disjoint_columns(("id", "dialogue", "speaker", "session"), _kept_whole(by)),
        validation=request.not_default("dialogue"),
    )


def _leave_one_speaker_out(request: SplitRequest) -> Splits:
    """Test each speaker once; by default, validate on the other speakers of the same sessions.

    The other speakers talk in the same dialogues, so they are not used for training. In a corpus
    without sessions the validation part is cut by whole speakers.
    """
    _require(request, "speaker")
    if all(utterance.session is None for utterance in request.utterances):
        by = request.cut_by("speaker")
        return Splits(
            tuple(_each_tested(request, "speaker", by=by)),
            _disjoint_columns(("id", "speaker"), _kept_whole(by)),
            validation=request.not_default("speaker"),
        )
    _require(request, "session")
    utterances = request.utterances
    folds = []
    for speaker in sorted({str(utterance.speaker) for utterance in utterances}):
        test = tuple(utterance for utterance in utterances if utterance.speaker == speaker)
        sessions = {utterance.session for utterance in test}
        train = tuple(utterance for utterance in utterances if utterance.session not in sessions)
        if request.validation:
            train, validation = cut_validation(train, request.validation)
        else:
            validation = tuple(
                utterance
                for utterance in utterances
                if utterance.session in sessions and utterance.speaker != speaker
            )
        if not validation:
            raise UsageError(
                f"protocol '{request.protocol}' validates on the other speakers of a session, but "
                f"'{speaker}' has no other speaker there: choose leave-one-session-out, or give "
                "--validation"
            )
        folds.append(Fold(speaker, train, validation, test))
    test_columns = ("id", "dialogue", "speaker", "session")
    if request.validation:
        disjoint = _disjoint_columns(test_columns, _kept_whole(request.validation))
    else:
        disjoint = _disjoint_columns(
            test_columns, ("id", "dialogue", "session"), validation_test=("id", "speaker")
        )
    return Splits(tuple(folds), disjoint, validation=request.validation)


def _speaker_folds(request: SplitRequest) -> Splits:
    """Test each speaker once, in five folds without common speakers."""
    return _in_folds(request, "speaker", SPEAKER_FOLDS)


def _group_folds(request: SplitRequest) -> Splits:
    column, colon, number = request.argument.partition(":")
    _check_column(request, column)
    if not colon or not re.fullmatch("[0-9]{1,6}", number) or int(number) < 2:
        raise UsageError(
            f"protocol '{request.protocol}' needs a number of folds, 2 or more: write "
            f"group-folds:{column}:10"
        )
    return _in_folds(request, column, int(number))


def _in_folds(request: SplitRequest, column: str, number: int) -> Splits:
    """Test each group once, in folds of similar size that do not depend on the order."""
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415 -- seconds to import

    _require(request, column)
    utterances = request.utterances
    groups = [str(value_of(utterance, column)) for utterance in utterances]
    if len(set(groups)) < number:
        raise UsageError(
            f"protocol '{request.protocol}' needs {number} {column}s or more, but this corpus has "
            f"{len(set(groups))}: choose another protocol"
        )
    by = request.cut_by(_validation_column(column))
    folds = []
    for n, (rest, tested) in enumerate(GroupKFold(number).split(utterances, groups=groups), 1):
        train, validation = cut_validation([utterances[i] for i in rest], by)
        test = tuple(utterances[i] for i in tested)
        folds.append(Fold(f"fold{n}", train, validation, test))
    disjoint = _disjoint_columns(_kept_whole(column), _kept_whole(by))
    return Splits(
        tuple(folds), disjoint, validation=request.not_default(_validation_column(column))
    )


def _hold_out(request: SplitRequest) -> Splits:
    column, equals, value = request.argument.partition("=")
    _check_column(request, column)
    if not equals:
        raise UsageError(
            f"protocol '{request.protocol}' needs the {column} of the test part: write "
            f"hold-out:{column}=VALUE"
        )
    _require(request, column)
    values = {str(value_of(utterance, column)) for utterance in request.utterances}
    held_out = _find_value(value, column, values)
    by = request.cut_by(_validation_column(column))
    (fold,) = _each_tested(request, column, [held_out], by)
    disjoint = _disjoint_columns(_kept_whole(column), _kept_whole(by))
    return Splits((fold,), disjoint, validation=request.not_default(_validation_column(column)))


def _by_file(request: SplitRequest) -> Splits:
    path = Path(request.argument).expanduser()
    return split_by_file(path, request.utterances, request.corpus, request.validation)


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
    request: SplitRequest, column: str, values: Iterable[str] | None = None, by: str = "dialogue"
) -> Iterator[Fold]:
    """Yield a fold for each of ``values`` of a column, by default all, as the test part."""
    utterances = request.utterances
    if values is None:
        values = sorted({str(value_of(utterance, column)) for utterance in utterances})
    for value in values:
        rest = [utterance for utterance in utterances if value_of(utterance, column) != value]
        test = tuple(utterance for utterance in utterances if value_of(utterance, column) == value)
        if not rest:
            raise PipelineError(
                f"every utterance has the {column} '{value}', so none is left for training: "
                "choose another protocol"
            )
        train, validation = cut_validation(rest, by)
        yield Fold(value, train, validation, test)


def _disjoint_columns(
    test: tuple[str, ...],
    train_validation: tuple[str, ...],
    validation_test: tuple[str, ...] | None = None,
) -> dict[Pair, tuple[str, ...]]:
    """Return the columns in which two parts must not share a value, for each two parts.

    ``test`` is for the test part with both other parts, unless ``validation_test`` is given for the
    validation and the test part.
    """
    return dict(zip(PAIRS, (train_validation, test, validation_test or test), strict=True))


def _kept_whole(column: str) -> tuple[str, ...]:
    """Return the columns of which a test part has whole values, if it has whole values of one.

    A split by speaker cannot keep dialogues whole, because several speakers talk in each.
    """
    return ("id", "dialogue", "session") if column == "session" else ("id", column)


def _validation_column(column: str) -> str:
    """Return the column by which validation is cut: sessions contain dialogues, so not these."""
    return column if column in ("speaker", "text") else "dialogue"


def _check_column(request: SplitRequest, column: str) -> None:
    if column in ("label", "turn", "audio", "split"):
        raise UsageError(
            f"protocol '{request.protocol}': a corpus cannot be split by {column}: choose "
            f"{', '.join(_COLUMNS)}"
        )
    if column not in _COLUMNS:
        raise unknown("column to split by", column, _COLUMNS)


def _find_value(given: str, column: str, values: set[str]) -> str:
    """Return a value by its name, or by a number in which only that value ends: 5 is Ses05."""
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


def _require(request: SplitRequest, column: str, what: str = "") -> None:
    """Raise an error unless every utterance has a value in a column.

    ``what`` needs the column, by default the protocol.
    """
    utterances = request.utterances
    without = [utterance.id for utterance in utterances if value_of(utterance, column) is None]
    if not without:
        return
    given = [
        name
        for name in ("split", *_COLUMNS)
        if name not in ("id", "text")
        and all(value_of(utterance, name) is not None for utterance in utterances)
    ]
    lacking = "which this corpus does not have"
    if len(without) < len(utterances):
        lacking += f" for {len(without)} of {len(utterances)} utterances ('{without[0]}')"
    advice = "give the corpus a column split, session or speaker, and extract it again"
    if given:
        advice = f"choose another protocol, by {' or '.join(given)}"
    if what:
        others = " or ".join(name for name in given if name in VALIDATIONS)
        advice = f"give --validation {others}, or leave it out" if others else "leave it out"
    what = what or f"protocol '{request.protocol}'"
    raise UsageError(f"{what} needs the column {column}, {lacking}: {advice}")
