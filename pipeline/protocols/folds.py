"""Folds, and the cut of a validation part from a training part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from ..corpora import Utterance
from ..errors import PipelineError

PARTS = ("train", "validation", "test")
VALIDATION_SHARE = 0.15
VALIDATIONS = ("session", "speaker", "dialogue")
"""The columns by which the user may have the validation part cut."""
_SPLIT_SEED = 0  # fixed, so that the seeds of a run differ only in the training

Pair = tuple[str, str]
"""Two parts of a fold."""

PAIRS: tuple[Pair, ...] = (("train", "validation"), ("train", "test"), ("validation", "test"))


@dataclass(frozen=True)
class Fold:
    """Three parts of a corpus that share no utterance."""

    name: str
    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    def part(self, name: str) -> tuple[Utterance, ...]:
        """Return the utterances of ``train``, ``validation`` or ``test``."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts[name]

    def whole_dialogues(self, name: str) -> frozenset[str]:
        """Return the dialogues of a part of which no utterance is in another part.

        Utterances in no part, because they have no label or no features, do not matter.
        """
        in_others = {
            utterance.dialogue for part in PARTS if part != name for utterance in self.part(part)
        }
        dialogues = {utterance.dialogue for utterance in self.part(name)}
        return frozenset(id for id in dialogues - in_others if id is not None)


@dataclass(frozen=True)
class Splits:
    """A corpus split by a protocol.

    ``disjoint_columns`` gives, for each two parts of a fold, the columns in which they must not
    share a value. ``notes`` are sentences to print. ``left_out`` gives the reason for each
    utterance that is in no part of any fold, by id. ``validation`` is the column by which the user
    has the validation part cut; ``None`` if the protocol would have done the same.
    """

    folds: tuple[Fold, ...]
    disjoint_columns: Mapping[Pair, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    validation: str | None = None


def value_of(utterance: Utterance, column: str) -> str | None:
    """Return the value of a column; a text in small letters and without the space around it."""
    value: str | None = getattr(utterance, column)
    if column == "text" and value is not None:
        return value.strip().casefold() or None
    return value


def cut_validation(
    utterances: Sequence[Utterance], by: str = "dialogue"
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Cut a validation part from a training part by whole values of a column, and return both.

    An utterance without a value in the column is a group of its own. The choice of groups does not
    depend on the order of ``utterances``. It is that of scikit-learn's ``GroupShuffleSplit``, which
    takes seconds to import: the first ones of the sorted groups, shuffled by ``RandomState``, whose
    numbers NumPy never changes.

    Raises:
        PipelineError: there is only one group.
    """
    groups: list[Any] = [value_of(utterance, by) or utterance.id for utterance in utterances]
    if len(set(groups)) < 2:
        raise PipelineError(
            f"the training part has only one {by}, which leaves no {by} for validation: choose "
            "another protocol or another --validation"
        )
    names = sorted(set(groups))
    shuffled = np.random.RandomState(_SPLIT_SEED).permutation(len(names))
    chosen = {names[i] for i in shuffled[: ceil(VALIDATION_SHARE * len(names))]}
    parts: tuple[list[Utterance], list[Utterance]] = [], []
    for utterance, group in zip(utterances, groups, strict=True):
        parts[group in chosen].append(utterance)
    return tuple(parts[0]), tuple(parts[1])
