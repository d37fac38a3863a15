"""Turns that are only context: a head reads them in their dialogue, and they have no label.

A part of a fold gets the turns of its own dialogues, so that nothing of one part reaches another. A
turn is left out if its dialogue is divided among parts, or if its speaker, session or split occurs
in other parts only: a protocol may keep the parts apart by one of these.
"""

from collections.abc import Sequence

from ..corpora import Utterance
from ..protocols.folds import PARTS, Fold

_COLUMNS = ("speaker", "session", "split")


def context_turns(fold: Fold, part: str, turns: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """Return those of ``turns`` that are context of the ``train``, ``validation`` or ``test`` part.

    ``turns`` are the utterances of :attr:`TrainingExamples.context`.
    """
    if not turns:
        return ()
    whole = fold.whole_dialogues(part)
    foreign = {column: _values(fold, column, others=part) for column in _COLUMNS}
    return tuple(
        turn
        for turn in turns
        if turn.dialogue in whole
        and not any(getattr(turn, column) in foreign[column] for column in _COLUMNS)
    )


def turns_read(folds: Sequence[Fold], turns: Sequence[Utterance]) -> set[str]:
    """Return the ids of ``turns`` that are context of a part of at least one fold."""
    return {
        turn.id for fold in folds for part in PARTS for turn in context_turns(fold, part, turns)
    }


def _values(fold: Fold, column: str, others: str) -> set[str]:
    """Return the values of a column that occur in other parts than ``others``, and not in it."""
    found = {name: {getattr(u, column) for u in fold.part(name)} for name in PARTS}
    elsewhere = set().union(*(found[name] for name in PARTS if name != others))
    return elsewhere - found[others] - {None}
