"""The records into which every corpus is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UsageError, unknown

SIDES = ("left", "right")
"""The halves of a picture that shows two people side by side."""


@dataclass(frozen=True, slots=True)
class Footage:
    """The part of a video that shows an utterance: by default the whole video.

    ``start`` and ``end`` are times in the video, in seconds; ``side`` is ``left`` or ``right`` if
    only this half of the picture shows the speaker.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    side: str | None = None

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a corpus.

    ``id`` is unique in the corpus. It begins with the split if the corpus has official splits
    (``train/dia0_utt3``), because the dialogue numbers of MELD start again in each split. ``audio``
    is the path of the clip, whether or not the file exists, or ``None`` if the corpus has no audio.
    ``dialogue`` and ``session`` are unique in the corpus too. ``turn`` is the position of the
    utterance in its dialogue. ``split`` is ``train``, ``validation`` or ``test`` (``test1``,
    ``test2`` and so on if the corpus has several test parts), or ``None`` if the corpus has no
    official splits. ``label`` is the corpus's own label, before classes are merged, or ``None`` if
    the corpus gives none. ``video`` is the path of the video that shows the speaker, or ``None``;
    ``video_start``, ``video_end`` and ``video_side`` are as in :class:`Footage`.

    ``attributes`` are numbers that were rated, such as ``valence``, by name and on the corpus's own
    scale. ``votes`` are how many annotators (or which share of them) chose each label, before
    classes are merged. What is not known is not in them; neither may be changed.
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
    # Without them in the text, which is part of a run's digest, older runs keep their digests.
    attributes: Mapping[str, float] = field(default_factory=dict, hash=False, repr=False)
    votes: Mapping[str, float] = field(default_factory=dict, hash=False, repr=False)
    # Not in the repr: the digest of a run that was made before these fields is made of it.
    video: Path | None = field(default=None, repr=False)
    video_start: float | None = field(default=None, repr=False)
    video_end: float | None = field(default=None, repr=False)
    video_side: str | None = field(default=None, repr=False)

    @property
    def footage(self) -> Footage | None:
        """The part of the video that shows the utterance; ``None`` without a video."""
        if self.video is None:
            return None
        return Footage(self.video, self.video_start, self.video_end, self.video_side)


@dataclass(frozen=True)
class PublishedCounts:
    """The number of utterances that a publication gives for each value of a field.

    ``by`` is ``label``, ``session``, ``split`` or ``speaker``; ``counts`` has the number for each
    of its values. ``classes`` names the class set whose utterances are counted; ``None`` if all
    utterances are.
    """

    source: str
    by: str
    counts: Mapping[str, int]
    classes: str | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus as it was read from disk.

    ``classes`` is the label set in the corpus's own order, whether or not each class occurs.
    ``protocol`` is the default protocol. ``ignored`` lists files among the clips that belong to no
    utterance, with the reason. ``notes`` are sentences to print wherever the corpus is used.
    ``class_sets`` are selections and merges of labels that papers use: name → label → class. A
    label that is not in a class set is left out. The first class set is the default. ``published``
    are counts from publications, for comparison. ``columns`` are further columns of the corpus:
    name → utterance id → value, without the utterances that have no value. The leakage check can
    compare them.
    """

    name: str
    utterances: list[Utterance]
    classes: tuple[str, ...]
    protocol: str
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    class_sets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    published: tuple[PublishedCounts, ...] = ()
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def in_classes(self, name: str | None = None) -> "Corpus":
        """Return the corpus with the labels of a class set, by default the first one.

        ``name`` may also be one of :attr:`columns`, such as ``sentiment``: its values are the
        labels then, and the classes are these values, sorted. An utterance whose label belongs to
        no class gets the label ``None``. Votes are added up by class; those for labels of no class
        are left out.

        Raises:
            UsageError: the corpus has no such class set and no such column.
        """
        if name is not None and name in self.columns and name not in self.class_sets:
            return self._with_labels_of(self.columns[name])
        if not self.class_sets:
            if name is not None:
                raise UsageError(
                    f"classes '{name}': {self.name} has only one set of {len(self.classes)} "
                    "classes: leave the option out"
                )
            return self
        chosen = name or next(iter(self.class_sets))
        if chosen not in self.class_sets:
            raise unknown(f"classes of {self.name}", chosen, [*self.class_sets, *self.columns])
        merged = self.class_sets[chosen]
        return replace(
            self,
            utterances=[
                replace(
                    utterance,
                    label=merged.get(utterance.label or ""),
                    votes=_merged_votes(utterance.votes, merged),
                )
                for utterance in self.utterances
            ],
            classes=tuple(dict.fromkeys(merged.values())),
            class_sets={},
        )

    def _with_labels_of(self, column: Mapping[str, str]) -> "Corpus":
        classes = tuple(sorted(set(column.values())))
        return replace(
            self,
            utterances=[
                replace(
                    utterance,
                    label=column.get(utterance.id),
                    votes={k: v for k, v in utterance.votes.items() if k in classes},
                )
                for utterance in self.utterances
            ],
            classes=classes,
            class_sets={},
        )


def _merged_votes(votes: Mapping[str, float], class_of: Mapping[str, str]) -> Mapping[str, float]:
    """Add up votes by class; no votes if all are for labels of no class."""
    merged: dict[str, float] = {}
    for label, number in votes.items():
        if label in class_of:
            merged[class_of[label]] = merged.get(class_of[label], 0.0) + number
    return merged if any(merged.values()) or not any(votes.values()) else {}
