"""A small tree in the layout of CREMA-D's repository, with the faults of the release."""

import shutil
from pathlib import Path

import numpy as np
from scipy.io import wavfile

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:2759bb80ce3ac9a64f18aa386ed436fc38e8dbf0568ef3d8957a24ab66e9317c\nsize 82260\n"
)
SILENT = "1006_MTI_SAD_XX"
TWINS = ("1002_IOM_DIS_XX", "1002_IOM_ANG_XX")  # the same audio
IDS = [
    f"{actor}_{sentence}_{emotion}_{level}"
    for actor in range(1001, 1007)
    for sentence, emotion, level in (
        *(("IEO", "ANG", "HI"), ("IEO", "FEA", "LO"), ("IEO", "HAP", "MD"), ("IOM", "DIS", "XX")),
        *(("MTI", "SAD", "XX"), ("DFA", "NEU", "XX")),
    )
] + [TWINS[1]]


def save_clip(path: Path, seed: int, *, silent: bool = False) -> None:
    samples = np.random.default_rng(seed).integers(-9000, 9000, 6400 + 160 * (seed % 5))
    wavfile.write(path, 16_000, (0 if silent else 1) * samples.astype(np.int16))


def write_crema_d(root: Path) -> Path:
    """Write the tree into the new folder ``root``, and return it."""
    clips = root / "AudioWAV"
    clips.mkdir(parents=True)
    for seed, id in enumerate(IDS):
        save_clip(clips / f"{id}.wav", seed, silent=id == SILENT)
    shutil.copy(clips / f"{TWINS[0]}.wav", clips / f"{TWINS[1]}.wav")
    (root / "VideoFlash").mkdir()
    (root / "VideoFlash" / "1001_IEO_ANG_HI.flv").write_text(POINTER)
    rows = [f'{n},"{id}"' for n, id in enumerate(IDS, 1)]
    (root / "SentenceFilenames.csv").write_text(
        "\n".join(['"Stimulus_Number","Filename"', *rows, ""])
    )
    return root


def to_pointers(root: Path, *ids: str) -> None:
    """Replace clips, by default all, by the pointers of a clone without Git LFS."""
    for id in ids or IDS:
        (root / "AudioWAV" / f"{id}.wav").write_text(POINTER)
