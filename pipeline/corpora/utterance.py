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

        An utterance whose label belongs to no class gets the label ``None``.

        Raises:
            UsageError: the corpus has no such class set.
        """
        if not self.class_sets:
            if name is not None:
                raise UsageError(
                    f"classes '{name}': {self.name} has only one set of {len(self.classes)} "
                    "classes: leave the option out"
                )
            return self
        chosen = name or next(iter(self.class_sets))
        if chosen not in self.class_sets:
            raise unknown(f"classes of {self.name}", chosen, self.class_sets)
        merged = self.class_sets[chosen]
        return replace(
            self,
            utterances=[
                replace(utterance, label=merged.get(utterance.label or ""))
                for utterance in self.utterances
            ],
            classes=tuple(dict.fromkeys(merged.values())),
            class_sets={},
        )
