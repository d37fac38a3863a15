"""How it grows: extraction, training and opening of ever more utterances; and what Dask costs.

All data are **synthetic**, and lie in the page cache. Each measurement is taken in a fresh process.

* ``corpus``: a corpus is extracted, and 2, 4 and 8 times as many utterances.
* ``training``: an epoch of hbf is trained on features in the cache, and on 2, 4 and 8 times as
  many, streamed.
* ``index``: an entry of a thousand to a million tiny utterances is opened and read.
* ``workers``: a small corpus is extracted in one process, and by one and two Dask workers.

Run it with ``python benchmarks/scale.py`` or ``python -m mser.benchmarks.scale``.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from mser.benchmarks.processes import Result, in_fresh_process
from mser.benchmarks.results import (
    Asked,
    Found,
    Plot,
    Rows,
    Table,
    Value,
    main,
    quartiles,
    ratios,
    turns,
)
from mser.benchmarks.scale_tasks import extract_by, extract_more, train_more
from mser.benchmarks.synthetic_features import make_entry, tiny_shards
from mser.benchmarks.train_data import MELD, make_examples
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.extract import ExtractSettings
from mser.pipeline.train import TrainSettings

SHARD_MIB = 1.0
ROUNDING = 2e-3  # of float16, relative to the length of a frame
LAYERS = 4  # of which hbf reads three
ALIKE = MELD._replace(shortest=3, longest=3)  # as long as MELD's in the mean

CORPUS_NOTE = (
    "Synthetic clips of 1 to 3 s and their sentences, two small encoders with random weights "
    "(5 layers, 64 wide), in one process without Dask, in shards of at most 1 MiB: features of the "
    "usual width would fill more shards by so few utterances. The encoders are loaded beforehand. "
    "Private memory is the process's own (RssAnon), looked at every 5 ms; what PyTorch and "
    "transformers take is in it, and in 'before'. The size on disk is that of all files of the "
    "cache, also relative to the bytes of the numbers alone: here utterances are small, so index, "
    "manifest and run records weigh more than they usually do. The features of the utterances "
    "that all sizes have in common must be the same in all runs, but for the last place of "
    "float16: utterances of equal length share a pass, and there are more of them."
)
TRAINING_NOTE = (
    "Synthetic features of two modalities (768 wide, float16, three layers read), streamed from "
    "the cache in batches of 32, after a warm-up of one batch. All utterances are 3 s long, so "
    "that more of them make no larger batches. The loss of an epoch must be the same in all "
    "rounds. Private memory is that of the process (RssAnon), looked at every 5 ms; pages of the "
    "mapped cache, which all processes share and the kernel takes back, are not in it."
)
INDEX_NOTE = (
    "Synthetic utterances of 2 layers, 1 to 3 frames and a width of 8, so that only the index "
    "weighs. Memory is the growth since before the entry was opened: private (RssAnon), mapped "
    "(RssFile), and the peak of both (VmHWM). The process imports the cache alone."
)
WORKERS_NOTE = (
    "The same cores are shared by all: one process or one worker has as many passes side by side "
    "as there are cores, two workers half as many each. As typed: the call starts the workers and "
    "loads the encoders, and stops the workers again; Python's own start and the imports of the "
    "calling process are not in it. Warm: workers and process have extracted the corpus once. The "
    "features of all must be equal. Corpus and encoders (random weights) are small and synthetic, "
    "which is the worst case for Dask: what it costs does not grow with the work."
)
SLOPE_NOTE = (
    "The exponent of a least-squares fit of logarithms in each round: 1 is linear, 0 is constant; "
    "above 1 would be worse than linear. What a thousand utterances more take is the slope of a "
    "straight line through the same points."
)


class Sizes(NamedTuple):
    """How much of everything."""

    a_session: int  # utterances in a session of the smallest corpus
    trained: int  # utterances of the smallest epoch
    times: tuple[int, ...]
    indexed: tuple[int, ...]
    workers: tuple[int, ...]


SMALL = Sizes(8, 32, (1, 2), (1000, 10_000, 100_000), (0, 1))
FULL = Sizes(40, 128, (1, 2, 4, 8), (1000, 10_000, 100_000, 1_000_000), (0, 1, 2))

Measured = dict[int, list[Result]]  # how many utterances → what was found in each round


def in_turn(
    sizes: Sequence[int], rounds: int, run: Callable[[int, int], Result], asked: Asked, what: str
) -> Measured:
    """What ``run`` finds of each size in each round; in each round in another order."""
    found: Measured = {size: [] for size in sizes}
    for number, size in turns(sizes, rounds):
        asked.say(f"{what}: round {number + 1} of {rounds}: {size}")
        found[size].append(run(size, number))
    return found


def tables(title: str, found: Measured, note: str, plot: str, slopes: Sequence[str]) -> list[Table]:
    """A table of everything that was found, and one of how some of it grows."""
    rows: Rows = {
        f"{size} utterances": {
            "utterances": size,
            **{name: quartiles([run[name] for run in runs]) for name in runs[0]},
        }
        for size, runs in found.items()
    }
    grown = {name: [[run[name] for run in runs] for runs in found.values()] for name in slopes}
    return [
        Table(f"{title} (synthetic)", rows, note, Plot(plot, log=True, x="utterances")),
        Table(
            f"{title}: how it grows (synthetic)",
            {name: slope(list(found), values) for name, values in grown.items()},
            SLOPE_NOTE,
            Plot("exponent"),
        ),
    ]


def slope(sizes: Sequence[int], values: Sequence[Sequence[float]]) -> dict[str, Value]:
    """Fit what was found of each size, in each round, to a power of the size and to a line."""
    rounds = list(zip(*values, strict=True))
    powers = [np.polyfit(np.log(sizes), np.log(one), 1)[0] for one in rounds]
    lines = [np.polyfit(sizes, one, 1)[0] * 1000 for one in rounds]
    return {
        "exponent": quartiles(list(map(float, powers))),
        "for each 1000 utterances more": quartiles(list(map(float, lines))),
    }


def corpus(folder: Path, sizes: Sizes, asked: Asked) -> list[Table]:
    encoders = _encoders(folder)
    roots = {synthetic.SESSIONS * sizes.a_session * times: times for times in sizes.times}
    for count, times in roots.items():
        synthetic.make(folder / f"{count}", utterances_per_session=sizes.a_session * times)
    same = [one.id for one in synthetic.load(folder / f"{min(roots)}").utterances]

    def run(count: int, number: int) -> Result:
        settings = _settings(folder / f"{count}", folder / "cache", encoders, asked, workers=0)
        found = in_fresh_process(extract_more, settings, same, folder / "known.npz")
        shutil.rmtree(settings.cache)
        assert found.pop("largest error") < ROUNDING
        assert found.pop("utterances") == count
        disk, features = found.pop("MB on disk"), found.pop("MB of features")
        return {
            "s": found["s"],
            "ms an utterance": found["s"] * 1e3 / count,
            **{name: value for name, value in found.items() if name != "s"},
            "MB on disk": disk,
            "× the bytes of the features": disk / features,
        }

    found = in_turn(list(roots), asked.rounds, run, asked, "corpus")
    grows = ("s", "peak private MB", "MB on disk")
    return tables("corpus: extraction", found, CORPUS_NOTE, "s", grows)


def training(folder: Path, sizes: Sizes, asked: Asked) -> list[Table]:
    counts = [sizes.trained * times for times in sizes.times]
    examples = {count: make_examples(folder / f"{count}", count, ALIKE, LAYERS) for count in counts}
    encoders: dict[str, str | None] = {"speech": None, "text": None}
    settings = TrainSettings("hbf", "synthetic", "", encoders, device=asked.device.type)
    losses: dict[int, float] = {}

    def run(count: int, number: int) -> Result:
        found = in_fresh_process(train_more, settings, examples[count])
        loss = found.pop("loss")
        assert losses.setdefault(count, loss) == loss
        seconds = found.pop("s")
        return {"s an epoch": seconds, "ms an utterance": seconds * 1e3 / count, **found}

    found = in_turn(counts, asked.rounds, run, asked, "training")
    grows = ("s an epoch", "peak private MB")
    return tables("training: an epoch of hbf", found, TRAINING_NOTE, "ms an utterance", grows)


def index(folder: Path, sizes: Sizes, asked: Asked) -> list[Table]:
    for count in sizes.indexed:
        begin = time.perf_counter()
        make_entry(folder / f"{count}", tiny_shards(count), layers=2, dim=8)
        asked.say(f"index: {count} utterances written in {time.perf_counter() - begin:.1f} s")

    def run(count: int, number: int) -> Result:
        said = [str(folder / f"{count}"), str(number), repr(time.time())]
        command = [sys.executable, "-m", "mser.benchmarks.index_opening", *said]
        found: Result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert found.pop("utterances") == count
        return found

    found = in_turn(sizes.indexed, asked.rounds, run, asked, "index")
    opened = "from open to the first utterance, ms"
    grows = (opened, "later batches of 64, ms", "private MB")
    return tables("index: opening an entry", found, INDEX_NOTE, opened, grows)


def workers(folder: Path, sizes: Sizes, asked: Asked) -> list[Table]:
    encoders, root = _encoders(folder), folder / "corpus"
    synthetic.make(root, utterances_per_session=sizes.a_session)
    same = [one.id for one in synthetic.load(root).utterances]
    known: set[str] = set()

    def run(count: int, number: int) -> Result:
        settings = _settings(root, folder / "cache", encoders, asked)
        found = in_fresh_process(extract_by, count, settings, same)
        shutil.rmtree(settings.cache)
        known.add(found.pop("features"))
        assert len(known) == 1
        return found

    found = in_turn(sizes.workers, asked.rounds, run, asked, "workers")
    rows: Rows = {}
    for state in ("as typed", "warm"):
        alone = [one[state] for one in found[0]]
        for count, runs in found.items():
            who = f"{count} Dask worker{'s' * (count > 1)}" if count else "without Dask"
            seconds = [one[state] for one in runs]
            rows[f"{who}, {state}"] = {
                "s": quartiles(seconds),
                "ms an utterance": median(seconds) * 1e3 / len(same),
                "× without Dask": ratios(seconds, alone),
            }
    title = f"workers: extraction of {len(same)} utterances (synthetic)"
    return [Table(title, rows, WORKERS_NOTE, Plot("s"))]


def _encoders(folder: Path) -> dict[str, str]:
    speech = save_speech_encoder(folder / "speech")
    text = save_text_encoder(folder / "text", synthetic.SENTENCE_WORDS)
    return {"speech": str(speech), "text": str(text)}


def _settings(
    root: Path, cache: Path, encoders: dict[str, str], asked: Asked, workers: int | None = None
) -> ExtractSettings:
    device = asked.device.type
    return ExtractSettings(
        "synthetic", root, cache, encoders, device=device, workers=workers, shard_mib=SHARD_MIB
    )


SECTIONS = (corpus, training, index, workers)


def measure(asked: Asked) -> Found:
    sizes = SMALL if asked.small else FULL
    found: list[Table] = []
    for section in SECTIONS:
        if asked.wants(section.__name__):
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                found += section(Path(folder), sizes, asked)
    said = {
        "utterances of corpus": " ".join(
            str(synthetic.SESSIONS * sizes.a_session * one) for one in sizes.times
        ),
        "of training": " ".join(str(sizes.trained * one) for one in sizes.times),
        "of index": " ".join(map(str, sizes.indexed)),
    }
    return Found(found, said)


if __name__ == "__main__":
    names = [section.__name__ for section in SECTIONS]
    main("scale", __doc__.partition("\n")[0], measure, (5, 2), names)
