"""EmoDB, the Berlin database of emotional speech (Burkhardt et al., Interspeech 2005).

    ROOT/wav/03a01Fa.wav     speaker 03, sentence a01, emotion F, version a (or ROOT is wav)

Ten actors say ten German sentences; the texts are those of the paper's table. The published part of
the recordings are the 535 clips that listeners found natural and recognised. Letters of emotions
are German: W (Wut, anger), L (Langeweile, boredom), E (Ekel, disgust), A (Angst, fear), F (Freude,
happiness), T (Trauer, sadness), N (neutral).
"""

import re
from pathlib import Path

from ..errors import PipelineError
from .utterance import Corpus, PublishedCounts, Utterance

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_PUBLISHED = PublishedCounts(
    "emodb.bilderbar.info, 535 clips of 10 speakers",
    "label",
    dict(zip(EMOTIONS.values(), (127, 81, 46, 69, 71, 62, 79), strict=True)),
)
_SUFFIXES = (".wav", ".flac")
_NAME = re.compile(rf"(0[389]|1[0-6])({'|'.join(SENTENCES)})([{''.join(EMOTIONS)}])([a-z])")


def load(root: Path) -> Corpus:
    """Read EmoDB from the folder ``root``, in which clips are WAV or FLAC.

    The protocol is ``leave-one-speaker-out``.

    Raises:
        PipelineError: there is no clip.
    """
    folder = root / "wav" if (root / "wav").is_dir() else root
    utterances: dict[str, Utterance] = {}
    ignored: list[tuple[Path, str]] = []
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.stem)
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if path.name.startswith("._"):
            ignored.append((path, "a macOS companion file, not a clip"))
        elif match is None:
            ignored.append((path, "not a clip name: SPEAKER SENTENCE EMOTION VERSION, 03a01Fa"))
        elif path.stem in utterances:
            ignored.append((path, f"the same clip as {utterances[path.stem].audio}"))
        else:
            utterances[path.stem] = _utterance(path, match)
    if not utterances:
        raise PipelineError(
            f"{root} is not EmoDB: it contains no clip such as wav/03a01Fa.wav; give the folder "
            "that contains 'wav'"
        )
    return Corpus(
        "emodb",
        list(utterances.values()),
        tuple(EMOTIONS.values()),
        "leave-one-speaker-out",
        ignored,
        published=(_PUBLISHED,),
    )


def _utterance(path: Path, match: re.Match[str]) -> Utterance:
    speaker, sentence, emotion, _ = match.groups()
    return Utterance(
        id=path.stem,
        audio=path,
        text=SENTENCES[sentence],
        label=EMOTIONS[emotion],
        speaker=speaker,
        session=None,
        dialogue=None,
        turn=None,
        split=None,
    )
