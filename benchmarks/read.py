"""How fast features are read from a cache, and in how much memory, beside other ways to read them.

All data are **synthetic**: random float16 numbers in the shape of wav2vec2-base (13 layers, 768
wide, 50 frames a second), in utterances as long as MELD's. The peers are lhotse's feature storage,
Hugging Face datasets, safetensors, h5py, zarr-python, and files of NumPy and PyTorch; the limit is
a memory map of the raw bytes. All must give the same bits before anything is timed. Speeds differ
from machine to machine; what holds are the ratios within one run.

* ``batches``: batches of 32 random utterances: one layer, all layers, and their weighted sum.
* ``epoch``: the whole store once, shuffled, in batches of 32.
* ``cold``: batches of which nothing is in the page cache.
* ``compression``: sizes and speeds of compressed entries of mser.
* ``memory``: what a fresh process takes to read many utterances.

Run it with ``python benchmarks/read.py`` or ``python -m mser.benchmarks.read``; it needs Linux.
"""

import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mser.benchmarks.read_cold import cold
from mser.benchmarks.read_memory import memory, memory_by_size
from mser.benchmarks.read_methods import MEMORY_MAP, OURS, Contender, Way, entry_way
from mser.benchmarks.read_peers import PACKAGES, contenders
from mser.benchmarks.read_speed import (
    BATCH,
    Read,
    Sums,
    agree,
    copies,
    one_layer,
    speed_rows,
    speeds,
)
from mser.benchmarks.results import Asked, Found, Plot, Rows, Table, main, quartiles, ratios, turns
from mser.benchmarks.synthetic_features import (
    FRAME_BYTES,
    LAYERS,
    Utterances,
    draw_shards,
    draw_utterances,
    make_entry,
)
from mser.pipeline.train.determinism import keep_freed_memory
from mser.tests.support.page_cache import StillCachedError

SECTIONS = ("batches", "epoch", "cold", "compression", "memory")
NONE = "zarr, none"

WAYS = """The files lie in the page cache. Each way ends with one copy of what was asked for in
private memory: a view is copied into a buffer, which is timed; what is a copy already is not copied
again. The C library keeps freed memory for the next copy (as in a training of mser's), without
which the ways that make copies would be slower. The memory map is the very files of mser's Zarr
entry, with all offsets in Python lists: nothing is looked up by id, nothing checked. zarr-python
decodes a whole layer of a shard of ours for each utterance, since the shard is laid out to be
mapped, so it has chunks of its own too (256 frames of one layer, the size that suits it best). h5py
and zarr-python, lhotse's NumpyHdf5, datasets and safetensors with a file a shard keep their files
open; a file an utterance is opened each time. lhotse's writers here are its lossless ones, which
keep float16 (its default, lilcom, is lossy): its reader is asked for a range of the first axis,
which for HDF5 reads one layer alone and for NumPy's files reads them all. datasets reads Arrow
files that it maps, by lists of rows and as NumPy's float16, for which it has to be asked (its
default is float32): one column of (frames, layers, dim) is read whole to give a layer; of a column
a layer, all layers have to be stacked."""

SUM = """Each way reads all layers as above, but a view is not copied before: PyTorch turns it into
float32 in a buffer and sums the layers with weights, on one thread of a CPU or on the GPU, which is
the same work for all and part of the time. GB/s are of the float16 features."""

EPOCH = """Every utterance of the store once, in a new order each round, the same for all ways; a
short epoch is repeated within the round, as it is. The one layer is another one each round.
*mser's* is the time of mser, Zarr, 32 at once."""

COMPRESSED = """Random numbers hardly shrink, so these sizes say nothing about real features; the
speeds are those of decoding. mser, 32 utterances at once."""


class Sizes(NamedTuple):
    """How large a store is; for how long a way is measured in a round; and what else is read."""

    gigabytes: float
    seconds: float
    cold_batches: int
    cold_rounds: int  # at most
    utterances: int  # read by a process of which the memory is looked at


FULL, SMALL = Sizes(0.8, 0.1, 4, 5, 5000), Sizes(0.08, 0.01, 1, 2, 200)
FEW = (OURS, "datasets, a column a layer", "lhotse, NumpyHdf5")  # in the small form


def write_stores(folder: Path, entrants: Mapping[str, Contender], made: Utterances) -> None:
    for store, write in {one.store: one.write for one in entrants.values()}.items():
        (folder / store).mkdir()
        write(folder / store, made)


def batches(ways: Mapping[str, Way], made: Utterances, size: Sizes, asked: Asked) -> list[Table]:
    plot = Plot(f"× {MEMORY_MAP}", log=True)
    sums = Sums(made, asked.device)
    copied: dict[str, Read] = {name: copies(way, made) for name, way in ways.items()}
    summed: dict[str, Read] = {name: sums.of(way) for name, way in ways.items()}
    tables = []
    for title, reads, single, note in (
        ("one layer", copied, True, WAYS),
        ("all layers", copied, False, WAYS),
        ("weighted sum of all layers", summed, False, SUM),
    ):
        asked.say(f"batches: {title}")
        found = speeds(reads, made, single, size.seconds, asked.rounds)
        rows = speed_rows(found, MEMORY_MAP, OURS)
        tables.append(Table(f"batches: {title} (synthetic)", rows, _line(note), plot))
    return tables


def epoch(ways: Mapping[str, Way], made: Utterances, size: Sizes, asked: Asked) -> list[Table]:
    tables = []
    reads = {name: copies(way, made) for name, way in ways.items()}
    for title, single in (("one layer", True), ("all layers", False)):
        asked.say(f"epoch: {title}")
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number, name in turns([*ways], asked.rounds):
            order = np.random.default_rng(number).permutation(len(made.ids)).tolist()
            layers = one_layer(number % LAYERS) if single else slice(None)
            took[name].append(_seconds(reads[name], order, layers, size.seconds))
        rows: Rows = {
            name: {
                "seconds": quartiles(its),
                f"× {MEMORY_MAP}'s": ratios(its, took[MEMORY_MAP]),
                "× mser's": ratios(its, took[OURS]),
            }
            for name, its in took.items()
        }
        plot = Plot("× mser's", log=True)
        tables.append(Table(f"epoch: {title} (synthetic)", rows, _line(EPOCH), plot))
    return tables


def _seconds(read: Read, order: list[int], layers: slice, least: float) -> float:
    """How long an epoch takes: the mean of as many as fill some time, one at least."""
    requests = [(order[start : start + BATCH], layers) for start in range(0, len(order), BATCH)]
    read(*requests[0])  # its files were used last before all the others'
    count, begin = 0, time.perf_counter()
    while True:
        for batch in requests:
            read(*batch)
        count, spent = count + 1, time.perf_counter() - begin
        if spent > least:
            return spent / count


def compression(folder: Path, size: Sizes, asked: Asked) -> list[Table]:
    made = draw_utterances(size.gigabytes / 4)
    raw = sum(made.frames) * LAYERS * FRAME_BYTES
    ways, sizes = {}, {}
    for store in ("zarr", "hdf5"):
        for how in ("none", "zstd", "blosc"):
            name = f"{store}, {how}"
            entry = make_entry(folder / name, draw_shards(made), store=store, compression=how)
            ways[name] = entry_way(entry, made, fresh=how != "none")
            sizes[name] = entry.folder.size("shards") / raw
    agree(ways, made)
    reads = {name: copies(way, made) for name, way in ways.items()}
    tables = []
    for title, single in (("one layer", True), ("all layers", False)):
        rows = speed_rows(speeds(reads, made, single, size.seconds, asked.rounds), NONE)
        for name, row in rows.items():
            row["size × the raw bytes"] = sizes[name]
        plot = Plot(f"× {NONE}", log=True)
        tables.append(Table(f"compression: {title} (synthetic)", rows, _line(COMPRESSED), plot))
    return tables


def measure(asked: Asked) -> Found:
    size = SMALL if asked.small else FULL
    made = draw_utterances(size.gigabytes)
    entrants, missing = contenders()
    tables: list[Table] = []
    keep_freed_memory()  # else ways that make copies would be several times slower
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        folder = Path(place)
        if asked.only != "compression":
            asked.say(f"writing the stores, {size.gigabytes} GB each")
            write_stores(folder, entrants, made)
        if asked.wants("cold"):  # first: what this process has mapped would stay in the page cache
            asked.say("cold")
            rounds = max(2, min(asked.rounds, size.cold_rounds))
            try:
                tables += cold(folder, entrants, size.gigabytes, size.cold_batches, rounds)
            except StillCachedError as error:
                missing["cold"] = str(error)
        if asked.wants("batches") or asked.wants("epoch"):
            asked.say("comparing what the ways give")
            ways = {name: one.open(folder / one.store, made) for name, one in entrants.items()}
            agree(ways, made)
            tables += batches(ways, made, size, asked) if asked.wants("batches") else []
            tables += epoch(ways, made, size, asked) if asked.wants("epoch") else []
        if asked.wants("compression"):
            asked.say("compression")
            tables += compression(folder, size, asked)
        if asked.wants("memory"):
            asked.say("memory")
            few = {name: one for name, one in entrants.items() if name in FEW}
            chosen = few if asked.small else entrants
            tables.append(memory(folder, chosen, size.gigabytes, size.utterances))
            tables.append(memory_by_size(folder, size.gigabytes, size.utterances))
    settings = {"GB a store": size.gigabytes, "utterances in it": len(made.ids)}
    return Found(tables, settings, missing, (*PACKAGES, "safetensors"))


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    torch.set_num_threads(1)  # the weighted sum's, for all ways
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    main("read", __doc__.partition("\n")[0], measure, rounds=(9, 2), sections=SECTIONS)
