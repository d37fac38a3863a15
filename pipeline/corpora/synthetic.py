"""A synthetic corpus: invented sentences, spoken by a synthesizer, for demonstrations and tests.

Nothing in it was said by anyone, and no result on it says anything about real speech. By
construction no modality is enough alone: about a third of the sentences and another third of the
voices say nothing about the emotion, and about one utterance in twenty gives no clue at all.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PipelineError
from .synthetic_sentences import SENTENCE_WORDS, sentence
from .utterance import Corpus, Utterance

if TYPE_CHECKING:
    from .synthetic_voice import Speaker

__all__ = ["CLASSES", "RECIPE", "SENTENCE_WORDS", "SESSIONS", "load", "make"]

CLASSES = ("angry", "happy", "neutral", "sad")
"""The emotions, in the corpus's order."""

RECIPE = 1
"""Counts up whenever the same seed would give another corpus."""

SESSIONS = 4
"""Of two speakers each."""

_NOTE = (
    "synthetic voices and sentences made by mser: for demonstrations and tests, "
    "no result on them says anything about real speech"
)
_MARK = "Synthetic emotional speech corpus made by mser, recipe version "
_README, _TABLE = "README.txt", "utterances.csv"
_COLUMNS = ("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn")

_TURNS = (8, 6, 10, 7, 9)  # of one dialogue after another, over and over
_BLOCK = 2 * CLASSES  # this many utterances of a session in a row hold each emotion twice
_PLAIN = 0.35  # both the sentence and the voice tell the emotion
_FLAT_TEXT = 0.30  # only the voice does
_FLAT_VOICE = 0.30  # only the sentence does; in the remaining 5 % neither does


def load(root: Path, *, utterances_per_session: int = 120) -> Corpus:
    """Read the synthetic corpus in ``root``; make it first, in this size, where it is not there.

    ``root`` may be absent, empty, or hold a corpus made earlier, whole or interrupted. Clips are
    mono 16-bit wav files at 16 kHz, one to three seconds long.

    Raises ``PipelineError`` for a folder that holds anything else, a corpus made by another
    version of the recipe, or one that lost clips.
    """
    if not (_is_ours(root) and (root / _TABLE).exists()):
        make(root, utterances_per_session=utterances_per_session)
    with (root / _TABLE).open(encoding="utf-8", newline="") as table:
        utterances = [_read(root, row) for row in csv.DictReader(table)]
    lost = sum(not (each.audio and each.audio.exists()) for each in utterances)
    if lost:
        raise PipelineError(
            f"{lost} of the {len(utterances)} clips of the synthetic corpus in {root} are missing: "
            "delete the folder and it is made again"
        )
    return Corpus("synthetic", utterances, CLASSES, "leave-one-session-out", notes=(_NOTE,))


def make(root: Path, *, utterances_per_session: int = 120, seed: int = 0) -> None:
    """Make a synthetic corpus of four sessions in ``root``, which is absent, empty or interrupted.

    The same ``seed`` gives the same bytes, and an utterance is the same however many are made. The
    classes are balanced in each session when ``utterances_per_session`` is a multiple of 8, and no
    dialogue is cut short when it is a multiple of 40. The table is written last, so that a folder
    without it is known to be incomplete.

    Raises ``PipelineError`` when ``root`` holds anything but an interrupted corpus.
    """
    from scipy.io import wavfile  # noqa: PLC0415 -- every worker would import it, and take seconds

    from .synthetic_voice import RATE, deliver, speak  # noqa: PLC0415

    interrupted = _is_ours(root)
    if interrupted and (root / _TABLE).exists():
        raise PipelineError(f"{root} holds a synthetic corpus already: delete the folder first")
    if interrupted:
        for clip in root.glob("wav/ses*/ses*_dia*_utt*.wav"):
            clip.unlink()
    root.mkdir(parents=True, exist_ok=True)
    _write(root / _README, f"{_MARK}{RECIPE}\n\nThese are {_NOTE}.\n")

    rows = [_COLUMNS]
    for number in range(1, SESSIONS + 1):
        session = f"ses{number:02d}"
        (root / "wav" / session).mkdir(parents=True, exist_ok=True)
        speakers = [_speaker(seed, number, who) for who in range(2)]
        for index, (dialogue, turn, who) in enumerate(_places(number, utterances_per_session)):
            rng = _rng(seed, number, 2, index)
            emotion = _emotion(seed, number, index)
            text, strength = _draw(emotion, rng)
            delivery = deliver(emotion, strength, speakers[who], rng)
            place = f"{session}_dia{dialogue:02d}"
            name = f"{place}_utt{turn:02d}"
            audio = f"wav/{session}/{name}.wav"
            wavfile.write(root / audio, RATE, speak(text, speakers[who], delivery, rng))
            speaker = f"{session}_{'fm'[who]}"
            rows.append((name, audio, text, emotion, speaker, session, place, str(turn)))
    # No field needs quotes: a sentence has no comma.
    _write(root / _TABLE, "".join(",".join(row) + "\n" for row in rows))


def _rng(seed: int, session: int, purpose: int, index: int) -> np.random.Generator:
    # Always four numbers: a SeedSequence takes [1] and [1, 0] for the same seed.
    return np.random.default_rng([seed, session, purpose, index])


def _speaker(seed: int, session: int, who: int) -> "Speaker":
    """Draw a female (0) or male (1) voice; averages near Peterson & Barney (1952)."""
    from .synthetic_voice import Speaker  # noqa: PLC0415

    a, b, c, d, e = _rng(seed, session, 0, who).uniform(-1, 1, 5).tolist()
    f0, tract = ((210, 1.16), (125, 1.0))[who]
    return Speaker(f0 * 1.12**a, tract * 1.05**b, 1.08**c, 1.5 * d, 1.3**e)


def _places(session: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield dialogue, turn and speaker (0 or 1) of the first ``count`` utterances of a session."""
    dialogue = 0
    while count > 0:
        turns = min(count, _TURNS[(session + dialogue) % len(_TURNS)])
        for turn in range(turns):
            yield dialogue, turn, (dialogue + turn) % 2
        count -= turns
        dialogue += 1


def _emotion(seed: int, session: int, index: int) -> str:
    block, place = divmod(index, len(_BLOCK))
    return _BLOCK[_rng(seed, session, 1, block).permutation(len(_BLOCK))[place]]


def _draw(emotion: str, rng: np.random.Generator) -> tuple[str, float]:
    """Draw a sentence and how strongly the voice shows ``emotion`` (0: not at all).

    Flat sentences and flat voices have a probability of 0.35 each. Independent draws would leave
    12 % of the utterances without any clue; one draw over the four cases leaves 5 %.
    """
    case = rng.uniform()
    flat_text = _PLAIN <= case < _PLAIN + _FLAT_TEXT or case >= _PLAIN + _FLAT_TEXT + _FLAT_VOICE
    flat_voice = case >= _PLAIN + _FLAT_TEXT
    strength = 0.0 if flat_voice else rng.uniform(0.9, 1.3)
    return sentence(None if flat_text else emotion, rng), strength


def _is_ours(root: Path) -> bool:
    """Tell a corpus made here, whole or interrupted, from a free place; refuse anything else."""
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise PipelineError(f"{root} is a file: name a folder for the synthetic corpus") from None
    partial = {f"{_README}.partial", f"{_TABLE}.partial"}
    if names <= partial:
        return False
    readme = root / _README
    mark = readme.read_text("utf-8", "replace").split("\n")[0] if readme.is_file() else ""
    # Foreign files beside a whole corpus do no harm, because nothing will be written there.
    foreign = set() if _TABLE in names else names - partial - {_README, "wav"}
    if not mark.startswith(_MARK) or foreign:
        raise PipelineError(
            f"{root} holds files that are not the synthetic corpus's: name an empty or new folder"
        )
    if mark != f"{_MARK}{RECIPE}":
        raise PipelineError(
            f"the synthetic corpus in {root} was made by recipe version {mark[len(_MARK) :]} and "
            f"this is version {RECIPE}: delete the folder and it is made again"
        )
    return True


def _write(path: Path, text: str) -> None:
    """Write ``path`` whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, "utf-8", newline="\n")
    os.replace(partial, path)


def _read(root: Path, row: dict[str, str]) -> Utterance:
    return Utterance(
        id=row["id"],
        audio=root / row["audio"],
        text=row["text"],
        label=row["label"],
        speaker=row["speaker"],
        session=row["session"],
        dialogue=row["dialogue"],
        turn=int(row["turn"]),
        split=None,
    )
