"""A small tree in IEMOCAP's layout, with the traps of the release."""

import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """An utterance of the release; if its text is ``None``, the transcript has no line for it."""

    id: str
    start: float
    end: float
    label: str
    text: str | None


# In the order of the ids, which is not the order of time: the numbers count per speaker.
ROWS = (
    Row("Ses01F_impro01_F000", 6.2901, 8.2357, "neu", "Excuse me."),
    Row("Ses01F_impro01_F001", 10.01, 11.3925, "hap", "Yeah."),
    Row("Ses01F_impro01_F002", 112.7, 114.25, "xxx", "Is there a problem?"),
    Row("Ses01F_impro01_M000", 7.5712, 10.475, "exc", "Do you have your forms?"),
    Row("Ses01F_impro01_M005", 20.5, 23.0, "fru", "Let me see them."),
    Row("Ses01M_script02_1_F000", 3.1, 4.0, "ang", "I told you [LAUGHTER] twice."),
    Row("Ses01M_script02_1_M000", 4.2, 5.9, "sad", "I know."),
    Row("Ses02F_impro03_F000", 1.0, 2.0, "sad", "At the café, it’s over."),
    Row("Ses02F_impro03_M000", 2.5, 4.5, "sur", "What?"),
    Row("Ses02F_impro03_M001", 5.0, 6.5, "neu", "All right."),
    Row("Ses03M_impro05a_F000", 1.5, 2.5, "ang", "The first half."),
    Row("Ses03M_impro05a_M000", 3.0, 4.5, "neu", "Go on."),
    Row("Ses03M_impro05b_F000", 1.5, 2.5, "hap", "The second half."),
    Row("Ses03M_impro05b_M000", 2.0, 4.0, "fea", None),
    Row("Ses04F_script01_3_F000", 1.0, 2.5, "exc", "Great!"),
    Row("Ses04F_script01_3_F001", 5.0, 6.0, "oth", "Hm."),
    Row("Ses04F_script01_3_M000", 3.0, 4.5, "dis", "No."),
    Row("Ses04F_script01_3_M001", 8.0, 9.5, "ang", "No!"),
    Row("Ses05M_script01_1_F000", 1.0, 2.5, "neu", "Of the first take."),
    Row("Ses05M_script01_1_M000", 3.0, 4.5, "sad", "Of the first take too."),
    Row("Ses05M_script01_1b_F000", 1.0, 2.5, "fru", "Of the second take."),
    Row("Ses05M_script01_1b_M000", 3.0, 4.5, "hap", "Of the second take too."),
)
IDS = {row.id for row in ROWS}
ABSENT = "Ses04F_script01_3_M001"  # has a label and a text, and no clip
WITHOUT_TEXT = "Ses03M_impro05b_M000"
# Lines of the transcripts that are not utterances: lines without an id, ids without a label.
UNLABELLED = {
    "Ses01F_impro01": ["M: Yeah.", "Ses01F_impro01_FXX0 [011.3925-012.0000]: Mmhm."],
    "Ses05M_script01_1": ["Ses05M_script01_1_MXX0 [005.0000-005.5000]: Oh.", "F:"],
}
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def dialogue_of(id: str) -> str:
    return id.rpartition("_")[0]


def session(root: Path, id: str) -> Path:
    return root / f"Session{id[4]}"


def labels(root: Path, dialogue: str) -> Path:
    return session(root, dialogue) / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"


def transcript(root: Path, dialogue: str) -> Path:
    return session(root, dialogue) / "dialog" / "transcriptions" / f"{dialogue}.txt"


def clip(root: Path, id: str) -> Path:
    return session(root, id) / "sentences" / "wav" / dialogue_of(id) / f"{id}.wav"


def label_lines(row: Row) -> str:
    """The lines of an utterance in the release: the consensus, then each annotator."""
    return (
        f"[{row.start:.4f} - {row.end:.4f}]\t{row.id}\t{row.label}\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\nC-E4:\tAnger; Frustration;\t([6.0000 - 7.0000] sad)\n"
        "C-F1:\tNeutral;\t()\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\nA-F1:\tval 2; act 3; dom  1;\t()\n\n"
    )


def save(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def save_clip(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-9000, 9000, 4000 + 100 * seed, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


def save_dialogue(root: Path, dialogue: str) -> None:
    rows = [row for row in ROWS if dialogue_of(row.id) == dialogue]
    save(labels(root, dialogue), HEADER + "".join(map(label_lines, rows)))
    lines = [
        f"{row.id} [{row.start:08.4f}-{row.end:08.4f}]: {row.text}"
        for row in sorted(rows, key=lambda row: row.start)
        if row.text is not None
    ]
    lines[1:1] = UNLABELLED.get(dialogue, [])
    save(transcript(root, dialogue), "".join(f"{line}\n" for line in lines) + "\n")


def write_iemocap(root: Path) -> Path:
    """Write the tree into the new folder ``root``, and return it."""
    for dialogue in dict.fromkeys(dialogue_of(row.id) for row in ROWS):
        save_dialogue(root, dialogue)
    for seed, row in enumerate(ROWS):
        if row.id != ABSENT:
            save_clip(clip(root, row.id), seed)
    first = "Ses01F_impro01"
    evaluation = labels(root, first).parent
    # The labels of single annotators, not the consensus; some files have the dialogue's name too.
    other = label_lines(Row(f"{first}_F000", 6.2901, 8.2357, "ang", None))
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        save(evaluation / folder / f"{first}_e2_cat.txt", f"{first}_F000 :Anger; ()\n")
        save(evaluation / folder / f"{first}.txt", HEADER + other)
    # Binary companion files of macOS, beside each kind of file.
    for path in (labels(root, first), transcript(root, first), clip(root, f"{first}_F000")):
        save(path.with_name(f"._{path.name}"), b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\xff\xfe")
    save_clip(root / "Session1" / "dialog" / "wav" / f"{first}.wav", 0)  # the whole dialogue
    save(root / "Documentation" / "README.txt", "The corpus.\n")
    return root
