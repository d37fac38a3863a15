"""Which test utterances a bootstrap draws together: single ones, or whole dialogues, for example.

Utterances of one dialogue are not independent, so an interval over single utterances is too narrow.
By default whole dialogues are drawn where the test utterances have ``FEWEST_GROUPS`` dialogues or
more, and single utterances otherwise. An utterance without a value is a group by itself. The
default and ``FEWEST_GROUPS`` are an interpretation: a bootstrap of few groups is unreliable.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..corpora import Utterance
from ..errors import UsageError, unknown

COLUMNS = ("speaker", "session", "dialogue")
GROUPS = ("utterance", *COLUMNS)
FEWEST_GROUPS = 10

Columns = Mapping[str, Mapping[str, str | None]]
"""Column → utterance id → value, for the columns in ``COLUMNS``."""


@dataclass(frozen=True)
class Groups:
    """The groups that a bootstrap draws.

    ``by`` is a name in ``GROUPS``, ``number`` the number of groups among the test utterances, and
    ``group_of`` an utterance's group by its id; ``None`` if single utterances are drawn.
    """

    by: str
    number: int
    group_of: Mapping[Any, Hashable] | None = None

    def __str__(self) -> str:
        """Return the number of groups, such as ``31 dialogues``."""
        return counted_groups(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Return ``by`` and ``number`` for JSON files."""
        return {"by": self.by, "number": self.number}

    def among(self, ids: Iterable[str]) -> "Groups":
        """Return the groups of some of the utterances."""
        units = {id: id if self.group_of is None else self.group_of[id] for id in ids}
        return Groups(self.by, len(set(units.values())), self.group_of)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence if there are too few groups for a reliable interval."""
        if self.group_of is None or self.number >= FEWEST_GROUPS:
            return ()
        return (f"the intervals draw only {self}, so they are unreliable",)


def group_columns(utterances: Iterable[Utterance]) -> Columns:
    """Return the columns of utterances by which they can be grouped."""
    known = list(utterances)
    return {column: {u.id: getattr(u, column) for u in known} for column in COLUMNS}


def chosen_groups(ids: Sequence[str], columns: Columns, by: str | None = None) -> Groups:
    """Group test utterances.

    Args:
        ids: the test utterances, each once.
        columns: their columns; a column may be missing.
        by: a name in ``GROUPS``; ``None`` is the default of this module.

    Raises:
        UsageError: ``by`` is unknown, no utterance has a value of it, or there is only one group.
    """
    if by is None:
        values = {columns.get("dialogue", {}).get(id) for id in ids} - {None}
        by = "dialogue" if len(values) >= FEWEST_GROUPS else "utterance"
    if by not in GROUPS:
        raise unknown("groups", by, GROUPS)
    if by == "utterance":
        return Groups(by, len(ids))
    values_of = columns.get(by, {})
    if all(values_of.get(id) is None for id in ids):
        raise UsageError(f"no test utterance has a {by}: choose other groups than {by}")
    # A tuple is never equal to the name of a group.
    group_of: dict[Any, Hashable] = {id: values_of.get(id) or (id,) for id in ids}
    number = len(set(group_of.values()))
    if number < 2:
        raise UsageError(f"all test utterances have one {by}: choose other groups than {by}")
    return Groups(by, number, group_of)


def groups_among(utterances: Iterable[Utterance], by: str | None = None) -> Groups:
    """Group test utterances by their own columns; see :func:`chosen_groups`."""
    tested = {utterance.id: utterance for utterance in utterances}
    return chosen_groups(tuple(tested), group_columns(tested.values()), by)


def counted_groups(groups: Mapping[str, Any] | None) -> str:
    """Return the text of :meth:`Groups.as_json`; ``None``, in older files, means utterances."""
    if groups is None:
        return "utterances"
    return f"{groups['number']} {groups['by']}{'' if groups['number'] == 1 else 's'}"
