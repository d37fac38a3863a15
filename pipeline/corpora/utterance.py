"""The one record that every corpus is read into."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UsageError, unknown


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a corpus.

    ``id`` is unique in the corpus and carries the split where the corpus has official splits
    (``train/dia0_utt3``), because MELD numbers its dialogues anew in each split. ``audio`` is the
    path of the clip whether or not it exists; ``None`` where the corpus has no audio. ``dialogue``
    and ``session`` are unique in the corpus too. ``turn`` orders the utterances of a dialogue.
    ``split`` is ``train``, ``validation`` or ``test``, or ``None`` where the corpus has no official
    splits. ``label`` is the corpus's own, before any merge; ``None`` where the corpus gives none.
    """

    id: str
    audio: Path | None
    text: str | None
    label: str | None
    speaker: str | None
    session: str | None
    dialogue: str | None
    turn: int | None
    split: str | None


@dataclass(frozen=True)
class Published:
    """How many utterances a publication counts, by a field of theirs.

    ``by`` is ``label``, ``session``, ``split`` or ``speaker``; ``counts`` are by its values.
    ``classes`` names the class set in which it counts, if it is not all utterances.
    """

    source: str
    by: str
    counts: Mapping[str, int]
    classes: str | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus as found on disk.

    ``classes`` is the label set in the corpus's own order, whether or not each class occurs.
    ``class_sets`` are the papers' choices and merges of labels: name → label → class; a label that
    is not in it is left out. The first is the one that is meant where nobody says which.
    ``published`` are counts to hold ours against. ``ignored`` names files that lie among the clips
    and belong to no utterance, with the reason. ``notes`` are sentences to
    print wherever the corpus is used.
    """

    name: str
    utterances: list[Utterance]
    classes: tuple[str, ...]
    protocol: str
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    class_sets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    def in_classes(self, name: str | None = None) -> "Corpus":
        """Return the corpus with the labels of a class set; ``None`` takes the first one.

        An utterance whose label is in no class has the label ``None``.

        Raises:
            UsageError: the corpus has no such class set.
        """
        if not self.class_sets:
            if name is not None:
                raise UsageError(
                    f"classes '{name}': {self.name} has one set of {len(self.classes)} classes: "
                    "leave the option out"
                )
            return self
        chosen = name or next(iter(self.class_sets))
        if chosen not in self.class_sets:
            raise unknown(f"classes of {self.name}", chosen, self.class_sets)
        merged = self.class_sets[chosen]
        return replace(
            self,
            utterances=[replace(one, label=merged.get(one.label or "")) for one in self.utterances],
            classes=tuple(dict.fromkeys(merged.values())),
            class_sets={},
        )
