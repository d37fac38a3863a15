"""The leakage check before training: values that the parts of a fold have in common."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PipelineError
from .folds import PAIRS, PARTS, Fold, Pair, value_of

CHECKED_COLUMNS = ("id", "audio", "speaker", "dialogue", "session", "text")
"""The compared columns: ``audio`` is the hash of the clip, ``text`` is in small letters.

A corpus may have further columns, of which the user chooses those to compare.
"""

_NAMES = {"audio": ("audio hash", "audio hashes")}  # other columns add an s


@dataclass(frozen=True)
class SharedValues:
    """The values of a column that occur in two parts of a fold.

    ``utterances`` are the numbers of utterances with such a value, in the first and in the second
    part; ``ids`` are the ids of those in the second part.
    """

    fold: str
    parts: Pair
    column: str
    values: frozenset[str]
    utterances: tuple[int, int]
    ids: frozenset[str]


@dataclass(frozen=True)
class DividedDialogues:
    """The dialogues with utterances in the test part and in another part of a fold.

    ``ids`` are the ids of their utterances in the test part.
    """

    fold: str
    dialogues: frozenset[str]
    ids: frozenset[str]


@dataclass(frozen=True)
class Leakage:
    """The values that parts have in common although the protocol allows it, for all folds.

    ``columns`` are the compared columns. ``not_given`` lists those in which no utterance has a
    value, so they are not checked.
    """

    folds: tuple[str, ...]
    columns: tuple[str, ...]
    not_given: tuple[str, ...]
    shared: tuple[SharedValues, ...]
    divided: tuple[DividedDialogues, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the result for ``metrics.json``, with a row per fold, pair of parts and column.

        A pair of parts without a row for a column in ``checked`` shares no value of it.
        """
        return {
            "checked": [column for column in self.columns if column not in self.not_given],
            "not_given": list(self.not_given),
            "shared": [
                {
                    "fold": shared.fold,
                    "parts": list(shared.parts),
                    "column": shared.column,
                    "values": len(shared.values),
                    "utterances": dict(zip(shared.parts, shared.utterances, strict=True)),
                }
                for shared in self.shared
            ],
            "divided_dialogues": [
                {"fold": cut.fold, "dialogues": len(cut.dialogues), "test": len(cut.ids)}
                for cut in self.divided
            ],
        }

    def lines(self) -> list[str]:
        """Return a sentence for each column and pair of parts that share values in any fold.

        A value and an utterance count once, in however many folds the value is shared.
        """
        lines = []
        for parts in PAIRS:
            for column in self.columns:
                folds = [row for row in self.shared if (row.parts, row.column) == (parts, column)]
                if folds:
                    values = len(frozenset[str]().union(*(row.values for row in folds)))
                    count = len(frozenset[str]().union(*(row.ids for row in folds)))
                    lines.append(
                        f"{parts[0]} and {parts[1]} share {_values_counted(values, column)} "
                        f"(in {_counted(count, 'utterance')} of the {parts[1]} part)"
                        f"{self._in_folds(len(folds))}"
                    )
        if self.divided:
            dialogues = len(frozenset[str]().union(*(cut.dialogues for cut in self.divided)))
            count = len(frozenset[str]().union(*(cut.ids for cut in self.divided)))
            lines.append(
                f"other parts contain {_counted(dialogues, 'dialogue')} of the test part "
                f"({_counted(count, 'test utterance')})"
                f"{self._in_folds(len(self.divided))}"
            )
        return lines

    def _in_folds(self, count: int) -> str:
        return f", {count} of {len(self.folds)} folds" if len(self.folds) > 1 else ""


def check_leakage(
    folds: Sequence[Fold],
    disjoint_columns: Mapping[Pair, tuple[str, ...]],
    audio_hashes: Mapping[str, str | None] | None = None,
    own_columns: Mapping[str, Mapping[str, str]] | None = None,
) -> Leakage:
    """Compare the parts of each fold in all columns.

    Args:
        folds: the folds of a protocol.
        disjoint_columns: for each two parts, the columns in which they must not share a value.
        audio_hashes: the sha256 of the clips by utterance id.
        own_columns: further columns of the corpus to compare: name → utterance id → value.

    Raises:
        PipelineError: two parts share a value that they must not share, or a part contains an
            utterance twice.
    """
    own = own_columns or {}
    by_id: dict[str, Mapping[str, str | None]] = {"audio": audio_hashes or {}, **own}
    columns = (*CHECKED_COLUMNS, *own)
    shared: list[SharedValues] = []
    divided: list[DividedDialogues] = []
    given: set[str] = set()
    for fold in folds:
        values = {part: _values(fold, part, columns, by_id) for part in PARTS}
        given.update(
            column for of_part in values.values() for column in columns if any(of_part[column])
        )
        in_fold = list(_shared(fold, columns, values))
        for row in in_fold:
            if row.column in disjoint_columns[row.parts]:
                raise PipelineError(
                    f"fold '{fold.name}' leaks: {row.parts[0]} and {row.parts[1]} share the "
                    f"{_NAMES.get(row.column, (row.column,))[0]} '{min(row.values)}', which the "
                    "protocol does not allow: correct the corpus or choose another protocol"
                )
        shared += in_fold
        whole = fold.whole_dialogues("test")
        cut = {u.id: u.dialogue for u in fold.test if u.dialogue and u.dialogue not in whole}
        if cut:
            dialogues = frozenset(str(dialogue) for dialogue in cut.values())
            divided.append(DividedDialogues(fold.name, dialogues, frozenset(cut)))
    return Leakage(
        tuple(fold.name for fold in folds),
        columns,
        tuple(column for column in columns if column not in given),
        tuple(shared),
        tuple(divided),
    )


Values = Mapping[str, Sequence[str | None]]
"""Column → the value of each utterance of a part, in its order."""


def _values(
    fold: Fold,
    part: str,
    columns: Sequence[str],
    by_id: Mapping[str, Mapping[str, str | None]],
) -> Values:
    utterances = fold.part(part)
    id, times = Counter(u.id for u in utterances).most_common(1)[0] if utterances else ("", 1)
    if times > 1:
        raise PipelineError(
            f"the {part} part of fold '{fold.name}' contains '{id}' {times} times: name it once"
        )
    return {
        column: [by_id[column].get(u.id) for u in utterances]
        if column in by_id
        else [value_of(u, column) for u in utterances]
        for column in columns
    }


def _shared(
    fold: Fold, columns: Sequence[str], values: Mapping[str, Values]
) -> Iterator[SharedValues]:
    for parts in PAIRS:
        for column in columns:
            first, second = (values[part][column] for part in parts)
            shared = frozenset(first) & frozenset(second) - {None}  # missing values are not shared
            if shared:
                known = frozenset(map(str, shared))
                ids = frozenset(
                    utterance.id
                    for utterance, value in zip(fold.part(parts[1]), second, strict=True)
                    if value in shared
                )
                numbers = (sum(value in shared for value in first), len(ids))
                yield SharedValues(fold.name, parts, column, known, numbers, ids)


def _values_counted(count: int, column: str) -> str:
    if column not in CHECKED_COLUMNS:  # it may have any name
        return f"{_counted(count, 'value')} of {column}"
    return _counted(count, column)


def _counted(count: int, name: str) -> str:
    singular, plural = _NAMES.get(name, (name, f"{name}s"))
    return f"{count} {singular if count == 1 else plural}"
