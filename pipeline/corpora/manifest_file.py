"""A corpus that is described by a file: one utterance a row, as CSV, JSON Lines or Parquet.

    id,audio,text,label,speaker,session,dialogue,turn,split
    Ses01F_impro01_F000,wav/Ses01F_impro01_F000.wav,Excuse me.,neutral,Ses01_F,1,Ses01F_impro01,0,

Only ``id`` is required. A column that is missing, and a cell that is empty or null, say that
nothing is known. Numbers are taken as their text, so a speaker may be 7. ``audio`` is relative to
the folder of the file; ``turn`` is a whole number; ``split`` is train, validation or test.
"""

from pathlib import Path

from ..errors import PipelineError, UsageError
from .manifest_readers import READERS
from .manifest_row import COLUMNS, utterance_of
from .utterance import Corpus, Utterance


def read_manifest(path: Path, name: str) -> Corpus:
    """Read the corpus ``name`` from a manifest, whose suffix says what kind of file it is.

    Its classes are the labels that occur, sorted. Its protocol is ``official`` where every
    utterance has a split, and otherwise ``leave-one-session-out``. A note names the columns that
    are not used.

    Raises:
        UsageError: there is no such file, or none of its kind can be read.
        PipelineError: the file is not of that kind, or an id is empty or occurs twice.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"the manifest '{path}' is none of {', '.join(READERS)}: give a file of one of these "
            "kinds, with the suffix that says so"
        )
    utterances: list[Utterance] = []
    unused: dict[str, None] = {}
    places: dict[str, str] = {}  # of the ids, in the file
    try:
        for place, cells in reader(path):
            try:
                one = utterance_of(cells, path.parent)
                if one.id in places:
                    raise ValueError(
                        f"its id {one.id!r} is that of {places[one.id]} too: an id must be unique"
                    )
            except ValueError as error:
                raise PipelineError(f"{path}, {place}: {error}") from error
            places[one.id] = place
            utterances.append(one)
            unused |= dict.fromkeys(column for column in cells if column not in (*COLUMNS, ""))
    except FileNotFoundError:
        raise UsageError(f"there is no manifest '{path}': give a file that is there") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 ({error}): convert it") from error
    if not utterances:
        raise PipelineError(f"{path} names no utterance: give it a row for each of them")
    labels = {one.label for one in utterances if one.label is not None}
    split = all(one.split is not None for one in utterances)
    return Corpus(
        name,
        utterances,
        tuple(sorted(labels)),
        "official" if split else "leave-one-session-out",
        notes=(f"{path.name}: not used: column {', '.join(unused)}",) if unused else (),
    )
