"""How fast features are read from a cache, and with how much memory, compared with other methods.

All data are **synthetic**: random float16 numbers in the shape of wav2vec2-base (13 layers, 768
wide, 50 frames per second), in utterances as long as MELD's. The other methods are lhotse's feature
storage, Hugging Face datasets, safetensors, h5py, zarr-python, and files of NumPy and PyTorch; a
memory map of the raw bytes is the upper limit. All must return the same bits before anything is
timed. Speeds differ between machines; compare the ratios within one run.

* ``batches``: batches of 32 random utterances: one layer, all layers, and their weighted sum.
* ``epoch``: the whole store once, shuffled, in batches of 32.
* ``cold``: batches that are not in the page cache.
* ``compression``: sizes and speeds of mser's compressed entries.
* ``memory``: the memory that a fresh process needs to read many utterances.

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

from mser.benchmarks.read_cold import measure_cold
from mser.benchmarks.read_memory import memory_by_method, memory_by_size
from mser.benchmarks.read_methods import MEMORY_MAP, MSER, OpenStore, ReadMethod, entry_store
from mser.benchmarks.read_peers import PACKAGES, available_methods
from mser.benchmarks.read_speed import (
    BATCH,
    Read,
    WeightedSum,
    check_equal,
    copying_reader,
    measure_speeds,
    one_layer,
    speed_rows,
)
from mser.benchmarks.results import (
    Measurement,
    Plot,
    Rows,
    RunOptions,
    Table,
    main,
    one_line,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.synthetic_features import (
    FRAME_BYTES,
    LAYERS,
    UtteranceLayout,
    draw_layout,
    draw_shards,
    make_entry,
)
from mser.pipeline.train.determinism import keep_freed_memory
from mser.tests.support.page_cache import StillCachedError

SECTIONS = ("batches", "epoch", "cold", "compression", "memory")
UNCOMPRESSED = "zarr, none"

COPY_NOTE = """All files are in the page cache. Each method ends with one copy of the requested
features in private memory: if it returns a view, the view is copied into a buffer, and the copy is
timed; if it returns a copy, nothing is copied again. The C library keeps freed memory for the next
copy, as in mser's training; without this, methods that return copies would be slower. The memory
map maps the files of mser's Zarr entry, with all offsets in Python lists: no id is looked up,
nothing is checked. mser's shards are laid out to be memory-mapped, so zarr-python decodes a whole
layer of a shard for each utterance; therefore zarr-python also has a store with its own chunks (256
frames of one layer, the size that it reads fastest). h5py, zarr-python, lhotse's NumpyHdf5,
datasets, and safetensors with one file per shard keep their files open; with one file per
utterance, a file is opened for each read. lhotse's writers here are lossless and keep float16 (its
default, lilcom, is lossy). lhotse's reader gets a range of the first axis: with HDF5 it reads one
layer alone, with NumPy files it reads all layers. datasets maps its Arrow files, and is asked for
lists of rows as NumPy float16 (its default is float32): from one column of (frames, layers, dim) it
reads all layers to return one; with one column per layer, all layers must be stacked."""

SUM_NOTE = """Each method reads all layers as above, but a view is not copied first: PyTorch
converts it to float32 in a buffer and computes a weighted sum of the layers, with one thread on a
CPU, or on the GPU. This work is the same for all methods and is part of the time. GB/s counts the
float16 features."""

EPOCH_NOTE = """Every utterance of the store once, in a new order each round, which is the same for
all methods. A short epoch is repeated within the round. For one layer, each round reads another
layer. *mser* is mser, Zarr, 32 at once."""

COMPRESSION_NOTE = """Random numbers can hardly be compressed, so these sizes do not predict those
of real features; the speeds are those of decompression. mser, 32 utterances at once."""


class Sizes(NamedTuple):
    """The size of a store, and how much is read."""

    gigabytes: float
    seconds: float  # for which each method is measured in a round
    cold_batches: int
    cold_rounds: int  # at most
    utterances: int  # read by a process whose memory is measured


FULL, SMALL = Sizes(0.8, 0.1, 4, 5, 5000), Sizes(0.08, 0.01, 1, 2, 200)
# In the small form, memory is measured for these alone.
MEMORY_SMALL = (MSER, "datasets, one column per layer", "lhotse, NumpyHdf5")


def write_stores(folder: Path, methods: Mapping[str, ReadMethod], layout: UtteranceLayout) -> None:
    """Write each store once."""
    for store, write in {method.store: method.write for method in methods.values()}.items():
        (folder / store).mkdir()
        write(folder / store, layout)


def measure_batches(
    stores: Mapping[str, OpenStore], layout: UtteranceLayout, size: Sizes, options: RunOptions
) -> list[Table]:
    plot = Plot(f"speed ÷ {MEMORY_MAP}", log=True)
    weighted_sum = WeightedSum(layout, options.device)
    copying = {name: copying_reader(store, layout) for name, store in stores.items()}
    summing = {name: weighted_sum.reader(store) for name, store in stores.items()}
    tables = []
    for title, readers, single, note in (
        ("one layer", copying, True, COPY_NOTE),
        ("all layers", copying, False, COPY_NOTE),
        ("weighted sum of all layers", summing, False, SUM_NOTE),
    ):
        options.log(f"batches: {title}")
        speeds = measure_speeds(readers, layout, single, size.seconds, options.rounds)
        rows = speed_rows(speeds, MEMORY_MAP, MSER)
        tables.append(Table(f"batches: {title} (synthetic)", rows, one_line(note), plot))
    return tables


def measure_epoch(
    stores: Mapping[str, OpenStore], layout: UtteranceLayout, size: Sizes, options: RunOptions
) -> list[Table]:
    tables = []
    readers = {name: copying_reader(store, layout) for name, store in stores.items()}
    for title, single in (("one layer", True), ("all layers", False)):
        options.log(f"epoch: {title}")
        seconds: dict[str, list[float]] = {name: [] for name in stores}
        for number, name in shuffled_turns([*stores], options.rounds):
            order = np.random.default_rng(number).permutation(len(layout.ids)).tolist()
            layers = one_layer(number % LAYERS) if single else slice(None)
            seconds[name].append(_epoch_seconds(readers[name], order, layers, size.seconds))
        rows: Rows = {
            name: {
                "seconds": quartiles(measured),
                f"seconds ÷ {MEMORY_MAP}": ratios(measured, seconds[MEMORY_MAP]),
                "seconds ÷ mser": ratios(measured, seconds[MSER]),
            }
            for name, measured in seconds.items()
        }
        plot = Plot("seconds ÷ mser", log=True)
        tables.append(Table(f"epoch: {title} (synthetic)", rows, one_line(EPOCH_NOTE), plot))
    return tables


def _epoch_seconds(read: Read, order: list[int], layers: slice, at_least: float) -> float:
    """Repeat the epoch until ``at_least`` seconds have passed; return the mean time of one."""
    requests = [(order[start : start + BATCH], layers) for start in range(0, len(order), BATCH)]
    # Other readers have just used the processor's caches, so one batch is read before.
    read(*requests[0])
    count, begin = 0, time.perf_counter()
    while True:
        for batch in requests:
            read(*batch)
        count, spent = count + 1, time.perf_counter() - begin
        if spent > at_least:
            return spent / count


def measure_compression(folder: Path, size: Sizes, options: RunOptions) -> list[Table]:
    layout = draw_layout(size.gigabytes / 4)
    raw_bytes = sum(layout.frames) * LAYERS * FRAME_BYTES
    stores, sizes = {}, {}
    for store in ("zarr", "hdf5"):
        for how in ("none", "zstd", "blosc"):
            name = f"{store}, {how}"
            entry = make_entry(folder / name, draw_shards(layout), store=store, compression=how)
            stores[name] = entry_store(entry, layout, returns_copies=how != "none")
            sizes[name] = entry.folder.size("shards") / raw_bytes
    check_equal(stores, layout)
    readers = {name: copying_reader(store, layout) for name, store in stores.items()}
    tables = []
    for title, single in (("one layer", True), ("all layers", False)):
        speeds = measure_speeds(readers, layout, single, size.seconds, options.rounds)
        rows = speed_rows(speeds, UNCOMPRESSED)
        for name, row in rows.items():
            row["size ÷ raw bytes"] = sizes[name]
        plot = Plot(f"speed ÷ {UNCOMPRESSED}", log=True)
        full_title = f"compression: {title} (synthetic)"
        tables.append(Table(full_title, rows, one_line(COMPRESSION_NOTE), plot))
    return tables


def measure(options: RunOptions) -> Measurement:
    size = SMALL if options.small else FULL
    layout = draw_layout(size.gigabytes)
    methods, missing = available_methods()
    tables: list[Table] = []
    keep_freed_memory()  # without it, methods that return copies would be several times slower
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        if options.only != "compression":
            options.log(f"writing the stores, {size.gigabytes} GB each")
            write_stores(folder, methods, layout)
        if options.includes("cold"):  # first: files that this process maps stay in the page cache
            options.log("cold")
            rounds = max(2, min(options.rounds, size.cold_rounds))
            try:
                tables += measure_cold(folder, methods, size.gigabytes, size.cold_batches, rounds)
            except StillCachedError as error:
                missing["cold"] = str(error)
        if options.includes("batches") or options.includes("epoch"):
            options.log("checking that all methods return the same bits")
            stores = {
                name: method.open(folder / method.store, layout) for name, method in methods.items()
            }
            check_equal(stores, layout)
            if options.includes("batches"):
                tables += measure_batches(stores, layout, size, options)
            if options.includes("epoch"):
                tables += measure_epoch(stores, layout, size, options)
        if options.includes("compression"):
            options.log("compression")
            tables += measure_compression(folder, size, options)
        if options.includes("memory"):
            options.log("memory")
            names = [name for name in methods if not options.small or name in MEMORY_SMALL]
            chosen = {name: methods[name] for name in names}
            tables.append(memory_by_method(folder, chosen, size.gigabytes, size.utterances))
            tables.append(memory_by_size(folder, size.gigabytes, size.utterances))
    settings = {"GB per store": size.gigabytes, "utterances per store": len(layout.ids)}
    return Measurement(tables, settings, missing, (*PACKAGES, "safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)  # for the weighted sum, in all methods
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    main("read", __doc__.partition("\n")[0], measure, rounds=(9, 2), sections=SECTIONS)
