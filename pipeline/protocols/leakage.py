"""The leakage check before training: values that the parts of a fold have in common."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..errors import PipelineError
from .folds import PAIRS, PARTS, Fold, Pair, value_of

CHECKED_COLUMNS = ("id", "audio", "speaker", "dialogue", "session", "text")
"""The compared columns: ``audio`` is the hash of the clip, ``text`` is in small letters."""

_NAMES = {"audio": ("audio hash", "audio hashes")}  # other columns add an s


@dataclass(frozen=True)
class SharedValues:
    """The values of a column that occur in two parts of a fold.

    ``utterances`` are the numbers of utterances with such a value, in the first and in the second
    part.
    """

    fold: str
    parts: Pair
    column: str
    values: frozenset[str]
    utterances: tuple[int, int]


@dataclass(frozen=True)
class DividedDialogues:
    """The dialogues with utterances in the test part and in another part of a fold.

    ``utterances`` is the number of their utterances in the test part.
    """

    fold: str
    dialogues: frozenset[str]
    utterances: int


@dataclass(frozen=True)
class Leakage:
    """The values that parts have in common although the protocol allows it, for all folds.

    ``not_given`` lists the columns in which no utterance has a value, so they are not checked.
    """

    folds: tuple[str, ...]
    not_given: tuple[str, ...]
    shared: tuple[SharedValues, ...]
    divided: tuple[DividedDialogues, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the result for ``metrics.json``, with a row per fold, pair of parts and column.

        A pair of parts without a row for a column in ``checked`` shares no value of it.
        """
        return {
            "checked": [column for column in CHECKED_COLUMNS if column not in self.not_given],
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
                {"fold": cut.fold, "dialogues": len(cut.dialogues), "test": cut.utterances}
                for cut in self.divided
            ],
        }

    def lines(self) -> list[str]:
        """Return a sentence for each column and pair of parts that share values in any fold.

        A value counts once, in however many folds it is shared; an utterance counts once per fold.
        """
        lines = []
        for parts in PAIRS:
            for column in CHECKED_COLUMNS:
                folds = [row for row in self.shared if (row.parts, row.column) == (parts, column)]
                if folds:
                    values = len(frozenset[str]().union(*(row.values for row in folds)))
                    count = sum(row.utterances[1] for row in folds)
                    lines.append(
                        f"{parts[0]} and {parts[1]} share {_counted(values, column)} "
                        f"(in {_counted(count, 'utterance')} of the {parts[1]} part)"
                        f"{self._in_folds(len(folds))}"
                    )
        if self.divided:
            dialogues = len(frozenset[str]().union(*(cut.dialogues for cut in self.divided)))
            count = sum(cut.utterances for cut in self.divided)
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
) -> Leakage:
    """Compare the parts of each fold in all columns.

    Args:
        folds: the folds of a protocol.
        disjoint_columns: for each two parts, the columns in which they must not share a value.
        audio_hashes: the sha256 of the clips by utterance id.

    Raises:
        PipelineError: two parts share a value that they must not share, or a part contains an
            utterance twice.
    """
    hashes = audio_hashes or {}
    shared: list[SharedValues] = []
    divided: list[DividedDialogues] = []
    given: set[str] = set()
    for fold in folds:
        counts = {part: _count(fold, part, hashes) for part in PARTS}
        given.update(
            column for part in counts.values() for column in CHECKED_COLUMNS if part[column]
        )
        in_fold = list(_shared(fold, counts))
        for row in in_fold:
            if row.column in disjoint_columns[row.parts]:
                raise PipelineError(
                    f"fold '{fold.name}' leaks: {row.parts[0]} and {row.parts[1]} share the "
                    f"{_NAMES.get(row.column, (row.column,))[0]} '{min(row.values)}', which the "
                    "protocol does not allow: correct the corpus or choose another protocol"
                )
        shared += in_fold
        dialogues = counts["test"]["dialogue"]
        cut = dialogues.keys() - fold.whole_dialogues("test")
        if cut:
            tested = sum(dialogues[dialogue] for dialogue in cut)
            divided.append(DividedDialogues(fold.name, frozenset(cut), tested))
    return Leakage(
        tuple(fold.name for fold in folds),
        tuple(column for column in CHECKED_COLUMNS if column not in given),
        tuple(shared),
        tuple(divided),
    )


def _count(fold: Fold, part: str, hashes: Mapping[str, str | None]) -> dict[str, Counter[Any]]:
    """Count the utterances of a part by the values of each column; ``None`` is not counted."""
    utterances = fold.part(part)
    counts: dict[str, Counter[Any]] = {
        column: Counter(map(attrgetter(column), utterances))
        for column in CHECKED_COLUMNS
        if column not in ("audio", "text")
    }
    counts["audio"] = Counter(hashes.get(utterance.id) for utterance in utterances)
    counts["text"] = Counter(value_of(utterance, "text") for utterance in utterances)
    for of_column in counts.values():
        del of_column[None]  # missing values are not shared
    id, times = max(counts["id"].items(), key=lambda item: item[1], default=("", 1))
    if times > 1:
        raise PipelineError(
            f"the {part} part of fold '{fold.name}' contains '{id}' {times} times: name it once"
        )
    return counts


def _shared(fold: Fold, counts: Mapping[str, Mapping[str, Counter[Any]]]) -> Iterator[SharedValues]:
    for parts in PAIRS:
        for column in CHECKED_COLUMNS:
            first, second = (counts[part][column] for part in parts)
            values = frozenset(first.keys() & second.keys())
            if values:
                utterances = (sum(first[v] for v in values), sum(second[v] for v in values))
                yield SharedValues(fold.name, parts, column, values, utterances)


def _counted(count: int, name: str) -> str:
    singular, plural = _NAMES.get(name, (name, f"{name}s"))
    return f"{count} {singular if count == 1 else plural}"
