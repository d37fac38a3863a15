"""A synthetic corpus: invented sentences, spoken by a synthesizer, for demonstrations and tests.

It contains no real speech and no real face, and results on it do not carry over to real ones. By
construction, no modality is sufficient alone: about a third of the sentences and another third of
the voices do not depend on the emotion, and in about one utterance in twenty neither does. About a
third of the drawn faces do not depend on it either, whatever the sentence and the voice.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PipelineError
from ..output import write_output
from .synthetic_sentences import SENTENCE_WORDS, sentence
from .tables import read_table
from .utterance import Corpus, Utterance

if TYPE_CHECKING:
    from .synthetic_face import Looks
    from .synthetic_voice import Speaker

__all__ = ["CLASSES", "RECIPE", "SENTENCE_WORDS", "SESSIONS", "load", "make"]

CLASSES = ("angry", "happy", "neutral", "sad")
"""The emotions, in the order of the corpus."""

RECIPE = 1
"""Version of the corpus: increased whenever the same seed would give another corpus."""

SESSIONS = 4
"""Number of sessions, of two speakers each."""

_NOTE = (
    "synthetic voices and sentences made by mser, for demonstrations and tests: "
    "results on them do not carry over to real speech"
)
_FACES = "the faces in its videos are drawings"
_MARK = "Synthetic emotional speech corpus made by mser, recipe version "
_README, _TABLE = "README.txt", "utterances.csv"
_COLUMNS = ("id", "audio", "text", "label", "speaker", "session", "dialogue", "turn")
_VIDEO = "video"  # a corpus of an older version has no such column

_TURNS = (8, 6, 10, 7, 9)  # turns of consecutive dialogues, repeated
_BLOCK = 2 * CLASSES  # so many consecutive utterances of a session contain each emotion twice
# Shares of the utterances in which the emotion shows:
_PLAIN = 0.35  # in the sentence and in the voice
_FLAT_TEXT = 0.30  # in the voice only
_FLAT_VOICE = 0.30  # in the sentence only; in neither for the remaining 5 %
_FLAT_FACE = 0.35  # of the faces do not show the emotion


def load(root: Path, *, utterances_per_session: int = 120, seed: int = 0) -> Corpus:
    """Read the synthetic corpus in ``root``; make it first, in this size, if it is not there.

    With another ``seed`` it has other voices and draws other sentences; its name is then
    ``synthetic-other``.

    ``root`` may be absent, empty, or contain a corpus made earlier, complete or interrupted. Clips
    are mono 16-bit wav files at 16 kHz, one to three seconds long, and videos of 64 x 64 pixels
    with five frames a second.

    Raises:
        PipelineError: the folder contains other files, a corpus made by another version of the
            recipe or with another seed, or a corpus with missing clips.
    """
    if not (_is_ours(root, seed) and (root / _TABLE).exists()):
        make(root, utterances_per_session=utterances_per_session, seed=seed)
    rows = read_table(root / _TABLE, (*_COLUMNS, _VIDEO), required=_COLUMNS)
    utterances = [_utterance(root, row.cells) for row in rows]
    clips = [[path for path in (u.audio, u.video) if path is not None] for u in utterances]
    missing = sum(not all(path.exists() for path in paths) for paths in clips)
    if missing:
        raise PipelineError(
            f"{missing} of the {len(clips)} clips of the synthetic corpus in {root} are "
            "missing: delete the folder, and the corpus is made again"
        )
    name = "synthetic" if seed == 0 else "synthetic-other"
    return Corpus(name, utterances, CLASSES, "leave-one-session-out", notes=(_NOTE,))


def load_other(root: Path, *, utterances_per_session: int = 120) -> Corpus:
    """Read the synthetic corpus of other voices; see :func:`load`."""
    return load(root, utterances_per_session=utterances_per_session, seed=1)


def make(root: Path, *, utterances_per_session: int = 120, seed: int = 0) -> None:
    """Make a synthetic corpus of four sessions in ``root``.

    ``root`` is absent, empty or contains an interrupted corpus. The same ``seed`` gives the same
    bytes, and an utterance does not depend on how many are made. The classes are balanced in each
    session if ``utterances_per_session`` is a multiple of 8, and no dialogue is cut short if it is
    a multiple of 40. The table is written last: a folder without it is incomplete.

    Raises:
        PipelineError: ``root`` contains anything else.
    """
    from scipy.io import wavfile  # noqa: PLC0415 -- takes seconds to import, in every worker

    from . import synthetic_face  # noqa: PLC0415
    from .synthetic_voice import RATE, deliver, speak  # noqa: PLC0415

    interrupted = _is_ours(root, seed)
    if interrupted and (root / _TABLE).exists():
        raise PipelineError(f"{root} already contains a synthetic corpus: delete the folder first")
    if interrupted:
        for pattern in ("wav/ses*/ses*_dia*_utt*.wav", "video/ses*/ses*_dia*_utt*.avi"):
            for clip in root.glob(pattern):
                clip.unlink()
    root.mkdir(parents=True, exist_ok=True)
    write_output(root / _README, f"{_MARK}{_version(seed)}\n\nThese are {_NOTE}; {_FACES}.\n")

    rows = [(*_COLUMNS, _VIDEO)]
    for number in range(1, SESSIONS + 1):
        session = f"ses{number:02d}"
        for folder in ("wav", "video"):
            (root / folder / session).mkdir(parents=True, exist_ok=True)
        speakers = [_speaker(seed, number, which) for which in range(2)]
        looks = [_looks(seed, number, which) for which in range(2)]
        for index, (dialogue, turn, which) in enumerate(_turns(number, utterances_per_session)):
            rng = _rng(seed, number, 2, index)
            emotion = _emotion(seed, number, index)
            text, strength = _draw(emotion, rng)
            delivery = deliver(emotion, strength, speakers[which], rng)
            dialogue_id = f"{session}_dia{dialogue:02d}"
            id = f"{dialogue_id}_utt{turn:02d}"
            audio = f"wav/{session}/{id}.wav"
            wave = speak(text, speakers[which], delivery, rng)
            wavfile.write(root / audio, RATE, wave)
            video = f"video/{session}/{id}.avi"
            rng = _rng(seed, number, 3, index)  # of its own: a voice does not depend on the face
            strength = 0.0 if rng.uniform() < _FLAT_FACE else rng.uniform(0.7, 1.3)
            pictures = synthetic_face.film(emotion, strength, looks[which], wave, rng)
            synthetic_face.save(root / video, pictures)
            speaker = f"{session}_{'fm'[which]}"
            rows.append((id, audio, text, emotion, speaker, session, dialogue_id, str(turn), video))
    # No cell needs quotes: a sentence has no comma.
    write_output(root / _TABLE, "".join(",".join(row) + "\n" for row in rows))


def _rng(seed: int, session: int, purpose: int, index: int) -> np.random.Generator:
    # Always four numbers: for a SeedSequence, [1] and [1, 0] are the same seed.
    return np.random.default_rng([seed, session, purpose, index])


def _speaker(seed: int, session: int, which: int) -> "Speaker":
    """Draw a female (0) or male (1) voice; averages near Peterson & Barney (1952)."""
    from .synthetic_voice import Speaker  # noqa: PLC0415

    a, b, c, d, e = _rng(seed, session, 0, which).uniform(-1, 1, 5).tolist()
    f0, tract = ((210, 1.16), (125, 1.0))[which]
    return Speaker(f0 * 1.12**a, tract * 1.05**b, 1.08**c, 1.5 * d, 1.3**e)


def _looks(seed: int, session: int, which: int) -> "Looks":
    """Draw the face of a speaker."""
    from .synthetic_face import draw_looks  # noqa: PLC0415

    return draw_looks(_rng(seed, session, 4, which))


def _turns(session: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield dialogue, turn and speaker (0 or 1) of the first ``count`` utterances of a session."""
    dialogue = 0
    while count > 0:
        turns = min(count, _TURNS[(session + dialogue) % len(_TURNS)])
        for turn in range(turns):
            yield dialogue, turn, (dialogue + turn) % 2
        count -= turns
        dialogue += 1


def _emotion(seed: int, session: int, index: int) -> str:
    block, position = divmod(index, len(_BLOCK))
    return _BLOCK[_rng(seed, session, 1, block).permutation(len(_BLOCK))[position]]


def _draw(emotion: str, rng: np.random.Generator) -> tuple[str, float]:
    """Draw a sentence, and the strength of ``emotion`` in the voice (0 is a neutral voice).

    Neutral sentences and neutral voices have a probability of 0.35 each. With independent draws,
    12 % of the utterances would have both; one draw over the four cases gives 5 %.
    """
    case = rng.uniform()
    flat_text = _PLAIN <= case < _PLAIN + _FLAT_TEXT or case >= _PLAIN + _FLAT_TEXT + _FLAT_VOICE
    flat_voice = case >= _PLAIN + _FLAT_TEXT
    strength = 0.0 if flat_voice else rng.uniform(0.9, 1.3)
    return sentence(None if flat_text else emotion, rng), strength


def _version(seed: int) -> str:
    return f"{RECIPE}, seed {seed}" if seed else f"{RECIPE}"


def _is_ours(root: Path, seed: int) -> bool:
    """Return whether ``root`` contains a synthetic corpus, complete or interrupted.

    Raises:
        PipelineError: ``root`` contains other files, or was made by another version.
    """
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise PipelineError(f"{root} is a file: give a folder for the synthetic corpus") from None
    partial = {f"{_README}.partial", f"{_TABLE}.partial"}
    if names <= partial:
        return False
    readme = root / _README
    mark = readme.read_text("utf-8", "replace").split("\n")[0] if readme.is_file() else ""
    # Other files beside a complete corpus do no harm, because nothing will be written there.
    foreign = set() if _TABLE in names else names - partial - {_README, "wav", "video"}
    if not mark.startswith(_MARK) or foreign:
        raise PipelineError(
            f"{root} contains files of something else: give an empty or new folder for the "
            "synthetic corpus"
        )
    if mark != f"{_MARK}{_version(seed)}":
        raise PipelineError(
            f"the synthetic corpus in {root} was made by recipe version {mark[len(_MARK) :]} and "
            f"this is version {_version(seed)}: delete the folder, and the corpus is made again"
        )
    return True


def _utterance(root: Path, row: Mapping[str, str]) -> Utterance:
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
        video=root / row[_VIDEO] if row.get(_VIDEO) else None,
    )
