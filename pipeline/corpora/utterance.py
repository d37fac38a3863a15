"""The one record that every corpus is read into."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a corpus.

    ``id`` is unique in the corpus and carries the split where the corpus has official splits
    (``train/dia0_utt3``), because MELD numbers its dialogues anew in each split. ``audio`` is the
    path of the clip whether or not it exists; ``None`` where the corpus has no audio. ``dialogue``
    and ``session`` are unique in the corpus too. ``turn`` orders the utterances of a dialogue.
    ``split`` is ``train``, ``validation`` or ``test``, or ``None`` where the corpus has no official
    splits. ``label`` is ``None`` where the corpus gives none.
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
class Corpus:
    """A corpus as found on disk.

    ``classes`` is the label set in the corpus's own order, whether or not each class occurs.
    ``ignored`` names files that lie among the clips and belong to no utterance, with the reason.
    ``notes`` are sentences to print wherever the corpus is used.
    """

    name: str
    utterances: list[Utterance]
    classes: tuple[str, ...]
    protocol: str
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
