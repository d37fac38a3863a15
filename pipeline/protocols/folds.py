"""A fold: three parts of a corpus, and how a validation part is cut from a training part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.model_selection import GroupShuffleSplit

from ..corpora import Utterance
from ..errors import PipelineError

PARTS = ("train", "validation", "test")
VALIDATION_SHARE = 0.15
_SPLIT_SEED = 0  # the same parts for every seed, so that seeds differ by the training alone

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

        What the fold leaves out altogether, because it has no label or no features, does not count.
        """
        others = {one.dialogue for part in PARTS if part != name for one in self.part(part)}
        here = {one.dialogue for one in self.part(name) if one.dialogue is not None}
        return frozenset(here - others)


@dataclass(frozen=True)
class Splits:
    """A corpus divided by a protocol.

    ``promises`` names, for two parts of a fold, the columns of which they never share a value.
    ``notes`` are sentences for a person. ``left_out`` gives the reason for each utterance that is
    in no part of any fold, by id.
    """

    folds: tuple[Fold, ...]
    disjoint_columns: Mapping[Pair, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def value_of(utterance: Utterance, column: str) -> str | None:
    """Return what an utterance has in a column; a text without case and the space around it."""
    value: str | None = getattr(utterance, column)
    if column == "text" and value is not None:
        return value.strip().casefold() or None
    return value


def cut_validation(
    utterances: Sequence[Utterance], by: str = "dialogue"
) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Cut a validation part from a training part by whole values of a column, and return both.

    An utterance of which the column is not known is a group of its own. Which groups are taken does
    not depend on the order of ``utterances``.

    Raises:
        PipelineError: there is one group alone.
    """
    groups: list[Any] = [value_of(one, by) or one.id for one in utterances]
    if len(set(groups)) < 2:
        raise PipelineError(
            f"a training part of one {by} leaves no {by} for validation: choose another protocol"
        )
    splitter = GroupShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=_SPLIT_SEED)
    train, validation = next(splitter.split(utterances, groups=groups))
    return tuple(utterances[at] for at in train), tuple(utterances[at] for at in validation)
