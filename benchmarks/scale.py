"""How extraction, training and opening grow with the number of utterances; what Dask costs.

All data are **synthetic** and are in the page cache. Each measurement is a fresh process.

* ``corpus``: extraction of a corpus, and of 2, 4 and 8 times as many utterances.
* ``training``: an epoch of hbf, streamed from the cache, and of 2, 4 and 8 times as many
  utterances.
* ``texts``: a corpus of a thousand to a million texts of which the cache holds all features
  already: the time of the bookkeeping.
* ``index``: opening and reading an entry of a thousand to a million tiny utterances.
* ``workers``: extraction of a small corpus in one process, and by one and two Dask workers.

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
    Measurement,
    Plot,
    Rows,
    RunOptions,
    Table,
    Value,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.scale_tasks import (
    extract_corpus,
    extract_with_workers,
    keep_books,
    train_epoch,
)
from mser.benchmarks.synthetic_features import make_entry, tiny_shards
from mser.benchmarks.train_data import MELD, make_examples
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.train import TrainSettings

SHARD_MIB = 1.0
MAX_ERROR = 2e-3  # rounding to float16, relative to the norm of a frame
LAYERS = 4  # of which hbf reads three
EQUAL_LENGTHS = MELD._replace(shortest=3, longest=3)  # the mean length of MELD

CORPUS_NOTE = (
    "Synthetic clips of 1 to 3 s and their sentences, two small encoders with random weights "
    "(5 layers, 64 wide), in one process without Dask, in shards of at most 1 MiB, so that these "
    "small features fill several shards. The encoders are loaded before. Private memory "
    "(RssAnon) belongs to the process alone and is sampled every 5 ms; it includes PyTorch and "
    "transformers, also in 'before'. The size on disk is that of all files of the cache; it is "
    "also divided by the bytes of the numbers alone. The utterances here are small, so the index, "
    "the manifest and the run records are a larger part than usual. The features of the "
    "utterances that all sizes share must be the same in all runs, up to the last digit of "
    "float16: utterances of equal length share a pass, and a larger corpus has more of them."
)
TRAINING_NOTE = (
    "Synthetic features of two modalities (768 wide, float16, three layers read), streamed from "
    "the cache in batches of 32, after a warm-up of one batch. All utterances are 3 s long, so a "
    "batch has the same size for every number of utterances. The loss of an epoch must be the "
    "same in all rounds. Private memory (RssAnon) is sampled every 5 ms; it does not include pages "
    "of the memory-mapped cache, which processes share and the kernel can free."
)
TEXTS_NOTE = (
    "A table of **synthetic** texts of four words, each with a speaker, a split and one of four "
    "classes, and one mean of the last layer of a small random encoder for each. The cache holds "
    "all features: *extract again* reads the table, hashes the texts, compares them with the index "
    "and publishes the entry. *Train for an epoch* is a whole training of `linear` by AdamW with "
    "one epoch: it reads the table of the corpus and the index, checks the folds for leaks, "
    "standardises, trains, validates, tests, and writes the run folder. Both are in one process "
    "that has imported everything. The first extraction is measured once for each size; it "
    "includes the forward passes."
)
INDEX_NOTE = (
    "Synthetic utterances of 2 layers, 1 to 3 frames and a width of 8, so that the index is the "
    "largest part. Memory is the growth from before the entry was opened: private (RssAnon), "
    "mapped (RssFile), and the peak of both (VmHWM). The process imports the cache alone."
)
WORKERS_NOTE = (
    "All rows use the same cores: one process or one worker computes as many passes in parallel "
    "as there are cores, two workers half as many each. Cold start: the call starts the workers, "
    "loads the encoders and stops the workers; the start of Python and the imports of the calling "
    "process are not included. Warm: the workers or the process have extracted the corpus once "
    "before. The features of all rows must be equal. The corpus and the encoders (random weights) "
    "are small and synthetic, which is the worst case for Dask: its cost does not grow with the "
    "work."
)
GROWTH_NOTE = (
    "The exponent is that of a power law, fitted in each round by least squares to the logarithms: "
    "1 is linear, 0 is constant, above 1 is worse than linear. The increase per thousand "
    "utterances is the slope of a straight line through the same points."
)


class Sizes(NamedTuple):
    """The sizes that are measured."""

    per_session: int  # utterances in a session of the smallest corpus
    training: int  # utterances of the smallest epoch
    multiples: tuple[int, ...]  # of the smallest corpus and epoch
    texts: tuple[int, ...]
    indexed: tuple[int, ...]  # utterances of the entries
    workers: tuple[int, ...]


_TENFOLD = (1000, 10_000, 100_000, 1_000_000)
SMALL = Sizes(8, 32, (1, 2), (1000, 4000), _TENFOLD[:3], (0, 1))
FULL = Sizes(40, 128, (1, 2, 4, 8), _TENFOLD, _TENFOLD, (0, 1, 2))

Measured = dict[int, list[Result]]  # number of utterances → one result per round


def measure_sizes(
    sizes: Sequence[int],
    rounds: int,
    run: Callable[[int, int], Result],
    options: RunOptions,
    label: str,
) -> Measured:
    """Call ``run(size, round)`` for each size in each round, each round in another order."""
    measured: Measured = {size: [] for size in sizes}
    for number, size in shuffled_turns(sizes, rounds):
        options.log(f"{label}: round {number + 1} of {rounds}: {size}")
        measured[size].append(run(size, number))
    return measured


def tables(
    title: str, measured: Measured, note: str, plot: str, growing: Sequence[str]
) -> list[Table]:
    """Return a table of all results, and one of the growth of the columns in ``growing``."""
    rows: Rows = {
        f"{size} utterances": {
            "utterances": size,
            **{name: quartiles([run[name] for run in runs]) for name in runs[0]},
        }
        for size, runs in measured.items()
    }
    values = {name: [[run[name] for run in runs] for runs in measured.values()] for name in growing}
    return [
        Table(f"{title} (synthetic)", rows, note, Plot(plot, log=True, x="utterances")),
        Table(
            f"{title}: growth (synthetic)",
            {name: growth(list(measured), by_size) for name, by_size in values.items()},
            GROWTH_NOTE,
            Plot("exponent"),
        ),
    ]


def growth(sizes: Sequence[int], values: Sequence[Sequence[float]]) -> dict[str, Value]:
    """Fit values to a power of the size and to a line, in each round.

    Args:
        sizes: numbers of utterances.
        values: for each size, one value per round.
    """
    rounds = list(zip(*values, strict=True))
    exponents = [np.polyfit(np.log(sizes), np.log(by_size), 1)[0] for by_size in rounds]
    slopes = [np.polyfit(sizes, by_size, 1)[0] * 1000 for by_size in rounds]
    return {
        "exponent": quartiles(list(map(float, exponents))),
        "per 1000 more utterances": quartiles(list(map(float, slopes))),
    }


def corpus(folder: Path, sizes: Sizes, options: RunOptions) -> list[Table]:
    encoders = _encoders(folder)
    multiples = {synthetic.SESSIONS * sizes.per_session * times: times for times in sizes.multiples}
    for count, times in multiples.items():
        synthetic.make(folder / f"{count}", utterances_per_session=sizes.per_session * times)
    smallest = synthetic.load(folder / f"{min(multiples)}")
    compared_ids = [utterance.id for utterance in smallest.utterances]

    def run(count: int, number: int) -> Result:
        settings = _settings(folder / f"{count}", folder / "cache", encoders, options, workers=0)
        reference = folder / "reference.npz"
        result = in_fresh_process(extract_corpus, settings, compared_ids, reference)
        shutil.rmtree(settings.cache)
        assert result.pop("largest error") < MAX_ERROR
        assert result.pop("utterances") == count
        disk, features = result.pop("MB on disk"), result.pop("MB of features")
        return {
            "seconds": result["seconds"],
            "ms per utterance": result["seconds"] * 1e3 / count,
            **{name: value for name, value in result.items() if name != "seconds"},
            "MB on disk": disk,
            "MB on disk ÷ MB of features": disk / features,
        }

    measured = measure_sizes(list(multiples), options.rounds, run, options, "corpus")
    growing = ("seconds", "peak private MB", "MB on disk")
    return tables("corpus: extraction", measured, CORPUS_NOTE, "seconds", growing)


def training(folder: Path, sizes: Sizes, options: RunOptions) -> list[Table]:
    counts = [sizes.training * times for times in sizes.multiples]
    examples = {
        count: make_examples(folder / f"{count}", count, EQUAL_LENGTHS, LAYERS) for count in counts
    }
    encoders: dict[str, str | None] = {"speech": None, "text": None}
    settings = TrainSettings("hbf", "synthetic", "", encoders, device=options.device.type)
    losses: dict[int, float] = {}

    def run(count: int, number: int) -> Result:
        result = in_fresh_process(train_epoch, settings, examples[count])
        loss = result.pop("loss")
        assert losses.setdefault(count, loss) == loss
        seconds = result.pop("seconds")
        return {"s per epoch": seconds, "ms per utterance": seconds * 1e3 / count, **result}

    measured = measure_sizes(counts, options.rounds, run, options, "training")
    growing = ("s per epoch", "peak private MB")
    title = "training: an epoch of hbf"
    return tables(title, measured, TRAINING_NOTE, "ms per utterance", growing)


def texts(folder: Path, sizes: Sizes, options: RunOptions) -> list[Table]:
    encoder = str(save_text_encoder(folder / "encoder", synthetic.SENTENCE_WORDS))
    settings: dict[int, tuple[ExtractSettings, TrainSettings]] = {}
    first: dict[int, float] = {}
    for count in sizes.texts:
        manifest = _write_texts(folder / f"{count}.csv", count)
        device, cache, name = options.device.type, folder / f"{count}", f"texts-{count}"
        extraction = ExtractSettings(
            "manifest",
            None,
            cache,
            {"text": encoder},
            manifest=manifest,
            name=name,
            layers="last",
            stored_frames="mean",
            device=device,
            workers=0,
        )
        training = TrainSettings(
            "linear",
            name,
            cache,
            {"text": None},
            out=folder / "run",
            device=device,
            optimizer="adamw",
            epochs=1,
        )
        settings[count] = extraction, training
        begin = time.perf_counter()
        extract(extraction)
        first[count] = time.perf_counter() - begin
        options.log(f"texts: {count} extracted in {first[count]:.1f} s")

    def run(count: int, number: int) -> Result:
        result = in_fresh_process(keep_books, *settings[count])
        return {"first extraction, s": first[count], **result}

    measured = measure_sizes(sizes.texts, options.rounds, run, options, "texts")
    growing = ("extract again, s", "peak private MB", "train for an epoch, s")
    return tables("texts: bookkeeping", measured, TEXTS_NOTE, growing[0], growing)


def _write_texts(path: Path, count: int) -> Path:
    words, rng = sorted(synthetic.SENTENCE_WORDS), np.random.default_rng(0)
    drawn = rng.integers(len(words), size=(count, 4)).tolist()
    classes = rng.integers(4, size=count).tolist()
    splits = ("train", "train", "train", "validation", "test")
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text,label,speaker,split\n")
        for number, (chosen, label) in enumerate(zip(drawn, classes, strict=True)):
            text = " ".join(words[word] for word in chosen)
            split = splits[number % len(splits)]
            file.write(f"utt{number:07},{text},class{label},{split}{number % 100},{split}\n")
    return path


def index(folder: Path, sizes: Sizes, options: RunOptions) -> list[Table]:
    for count in sizes.indexed:
        begin = time.perf_counter()
        make_entry(folder / f"{count}", tiny_shards(count), layers=2, dim=8)
        options.log(f"index: {count} utterances written in {time.perf_counter() - begin:.1f} s")

    def run(count: int, number: int) -> Result:
        arguments = [str(folder / f"{count}"), str(number), repr(time.time())]
        command = [sys.executable, "-m", "mser.benchmarks.index_opening", *arguments]
        output = subprocess.run(command, check=True, capture_output=True).stdout
        result: Result = json.loads(output)
        assert result.pop("utterances") == count
        return result

    measured = measure_sizes(sizes.indexed, options.rounds, run, options, "index")
    opening = "open and read one utterance, ms"
    growing = (opening, "later batches of 64, ms", "private MB")
    return tables("index: opening an entry", measured, INDEX_NOTE, opening, growing)


def workers(folder: Path, sizes: Sizes, options: RunOptions) -> list[Table]:
    encoders, root = _encoders(folder), folder / "corpus"
    synthetic.make(root, utterances_per_session=sizes.per_session)
    ids = [utterance.id for utterance in synthetic.load(root).utterances]
    checksums: set[str] = set()

    def run(count: int, number: int) -> Result:
        settings = _settings(root, folder / "cache", encoders, options)
        result = in_fresh_process(extract_with_workers, count, settings, ids)
        shutil.rmtree(settings.cache)
        checksums.add(result.pop("features"))
        assert len(checksums) == 1
        return result

    measured = measure_sizes(sizes.workers, options.rounds, run, options, "workers")
    rows: Rows = {}
    for state in ("cold start", "warm"):
        without_dask = [result[state] for result in measured[0]]
        for count, results in measured.items():
            who = f"{count} Dask worker{'s' * (count > 1)}" if count else "without Dask"
            seconds = [result[state] for result in results]
            rows[f"{who}, {state}"] = {
                "seconds": quartiles(seconds),
                "ms per utterance": median(seconds) * 1e3 / len(ids),
                "seconds ÷ without Dask": ratios(seconds, without_dask),
            }
    title = f"workers: extraction of {len(ids)} utterances (synthetic)"
    return [Table(title, rows, WORKERS_NOTE, Plot("seconds"))]


def _encoders(folder: Path) -> dict[str, str]:
    speech = save_speech_encoder(folder / "speech")
    text = save_text_encoder(folder / "text", synthetic.SENTENCE_WORDS)
    return {"speech": str(speech), "text": str(text)}


def _settings(
    root: Path,
    cache: Path,
    encoders: dict[str, str],
    options: RunOptions,
    workers: int | None = None,
) -> ExtractSettings:
    device = options.device.type
    return ExtractSettings(
        "synthetic", root, cache, encoders, device=device, workers=workers, shard_mib=SHARD_MIB
    )


SECTIONS = (corpus, training, texts, index, workers)


def measure(options: RunOptions) -> Measurement:
    sizes = SMALL if options.small else FULL
    measured: list[Table] = []
    for section in SECTIONS:
        if options.includes(section.__name__):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                measured += section(Path(folder), sizes, options)
    smallest = synthetic.SESSIONS * sizes.per_session
    settings = {
        "corpus: utterances": " ".join(str(smallest * times) for times in sizes.multiples),
        "training: utterances": " ".join(str(sizes.training * times) for times in sizes.multiples),
        "texts: utterances": " ".join(map(str, sizes.texts)),
        "index: utterances": " ".join(map(str, sizes.indexed)),
    }
    return Measurement(measured, settings)


if __name__ == "__main__":
    names = [section.__name__ for section in SECTIONS]
    main("scale", __doc__.partition("\n")[0], measure, (5, 2), names)
