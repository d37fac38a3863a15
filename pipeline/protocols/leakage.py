"""The leakage check: what the parts of each fold have in common, before anything is trained."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..errors import PipelineError
from .folds import PAIRS, PARTS, Fold, Pair, value_of

COLUMNS = ("id", "audio", "speaker", "dialogue", "session", "text")
"""What is compared: ``audio`` by the hash of the clip, ``text`` without case and outer space."""

_NAMES = {"audio": ("audio hash", "audio hashes")}  # of the others, the column and an s


@dataclass(frozen=True)
class Shared:
    """The values of a column that occur in two parts of a fold.

    ``utterances`` counts those that have such a value, in the first part and in the second.
    """

    fold: str
    parts: Pair
    column: str
    values: frozenset[str]
    utterances: tuple[int, int]


@dataclass(frozen=True)
class Divided:
    """The dialogues of a fold's test part that go on in another part, and their test utterances."""

    fold: str
    dialogues: frozenset[str]
    utterances: int


@dataclass(frozen=True)
class Leakage:
    """What the parts of each fold have in common, none of which the protocol rules out.

    ``not_given`` names the columns that no utterance has, so that nothing is known of them.
    """

    folds: tuple[str, ...]
    not_given: tuple[str, ...]
    shared: tuple[Shared, ...]
    divided: tuple[Divided, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for ``metrics.json``: a row for each fold, pair of parts and column that share.

        A pair of parts that has no row for a column in ``checked`` shares nothing.
        """
        return {
            "checked": [column for column in COLUMNS if column not in self.not_given],
            "not_given": list(self.not_given),
            "shared": [
                {
                    "fold": one.fold,
                    "parts": list(one.parts),
                    "column": one.column,
                    "values": len(one.values),
                    "utterances": dict(zip(one.parts, one.utterances, strict=True)),
                }
                for one in self.shared
            ],
            "divided_dialogues": [
                {"fold": one.fold, "dialogues": len(one.dialogues), "test": one.utterances}
                for one in self.divided
            ],
        }

    def lines(self) -> list[str]:
        """Return a sentence for each column that two parts share, summed up over the folds.

        Values are counted once however many folds share them, utterances once a fold.
        """
        lines = []
        for parts in PAIRS:
            for column in COLUMNS:
                found = [one for one in self.shared if (one.parts, one.column) == (parts, column)]
                if found:
                    values = len(frozenset[str]().union(*(one.values for one in found)))
                    count = sum(one.utterances[1] for one in found)
                    lines.append(
                        f"{parts[0]} and {parts[1]} share {_counted(values, column)} "
                        f"(in {_counted(count, 'utterance')} of the {parts[1]} part)"
                        f"{self._of_folds(len(found))}"
                    )
        if self.divided:
            dialogues = len(frozenset[str]().union(*(one.dialogues for one in self.divided)))
            count = sum(one.utterances for one in self.divided)
            lines.append(
                f"{_counted(count, 'test utterance')} of {_counted(dialogues, 'dialogue')} that "
                f"are divided among parts{self._of_folds(len(self.divided))}"
            )
        return lines

    def _of_folds(self, count: int) -> str:
        return f", {count} of {len(self.folds)} folds" if len(self.folds) > 1 else ""


def check_leakage(
    folds: Sequence[Fold],
    disjoint_columns: Mapping[Pair, tuple[str, ...]],
    audio_hashes: Mapping[str, str | None] | None = None,
) -> Leakage:
    """Compare the parts of each fold, and refuse what the protocol promises that they never share.

    ``promises`` names columns for two parts; ``audio_hashes`` gives the sha256 of the clips, by id.

    Raises:
        PipelineError: two parts share what they must not, or a part holds an utterance twice.
    """
    hashes = audio_hashes or {}
    shared: list[Shared] = []
    divided: list[Divided] = []
    given: set[str] = set()
    for fold in folds:
        counts = {part: _count(fold, part, hashes) for part in PARTS}
        given.update(column for of in counts.values() for column in COLUMNS if of[column])
        found = list(_shared(fold, counts))
        for one in found:
            if one.column in disjoint_columns[one.parts]:
                raise PipelineError(
                    f"fold '{fold.name}' leaks: {one.parts[0]} and {one.parts[1]} share the "
                    f"{_NAMES.get(one.column, (one.column,))[0]} '{min(one.values)}', which the "
                    "protocol keeps apart: correct the corpus or choose another protocol"
                )
        shared += found
        dialogues = counts["test"]["dialogue"]
        cut = dialogues.keys() - fold.whole_dialogues("test")
        if cut:
            tested = sum(dialogues[dialogue] for dialogue in cut)
            divided.append(Divided(fold.name, frozenset(cut), tested))
    return Leakage(
        tuple(fold.name for fold in folds),
        tuple(column for column in COLUMNS if column not in given),
        tuple(shared),
        tuple(divided),
    )


def _count(fold: Fold, part: str, hashes: Mapping[str, str | None]) -> dict[str, Counter[Any]]:
    """Count the utterances of a part by the values of each column, those that are known."""
    utterances = fold.part(part)
    counts: dict[str, Counter[Any]] = {
        column: Counter(map(attrgetter(column), utterances))
        for column in COLUMNS
        if column not in ("audio", "text")
    }
    counts["audio"] = Counter(hashes.get(one.id) for one in utterances)
    counts["text"] = Counter(value_of(one, "text") for one in utterances)
    for of in counts.values():
        del of[None]  # a value that is not known is shared with nobody
    id, times = max(counts["id"].items(), key=lambda item: item[1], default=("", 1))
    if times > 1:
        raise PipelineError(
            f"fold '{fold.name}' holds '{id}' {times} times in its {part} part: name it once"
        )
    return counts


def _shared(fold: Fold, counts: Mapping[str, Mapping[str, Counter[Any]]]) -> Iterator[Shared]:
    for parts in PAIRS:
        for column in COLUMNS:
            first, second = (counts[part][column] for part in parts)
            values = frozenset(first.keys() & second.keys())
            if values:
                utterances = (sum(first[v] for v in values), sum(second[v] for v in values))
                yield Shared(fold.name, parts, column, values, utterances)


def _counted(count: int, what: str) -> str:
    one, many = _NAMES.get(what, (what, f"{what}s"))
    return f"{count} {one if count == 1 else many}"
