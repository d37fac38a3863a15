"""Measure the memory that reading needs, each method in a fresh process."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mser.benchmarks.processes import Result, growth, in_fresh_process, memory_now
from mser.benchmarks.read_methods import METHODS, MSER, ReadMethod
from mser.benchmarks.read_peers import available_methods
from mser.benchmarks.read_speed import copying_reader, one_layer
from mser.benchmarks.results import Plot, Rows, Table, one_line
from mser.benchmarks.synthetic_features import LAYERS, draw_layout

NOTE = """Growth of the memory of a fresh process from before it opened the store, measured after
each of {count} random utterances, of which one layer is read. *Private* memory (`RssAnon`) belongs
to this process alone. *Mapped* memory (`RssFile`) are pages of the page cache that the process has
touched: it grows up to the size of what was read, all processes that read the store share it, and
the kernel frees it when it needs memory. *Peak RSS* is `VmHWM`, the peak of both together; on Linux
`ru_maxrss` would include the peak of the parent process. Libraries are imported before the
measurement; what a method imports later, when it opens the store, counts."""


def read_many(name: str, store: Path, gigabytes: float, count: int) -> Result:
    """Copy one random layer of each of ``count`` random utterances; return the memory growth."""
    layout, rng = draw_layout(gigabytes), np.random.default_rng(2)
    method = METHODS.get(name) or available_methods()[0][name]  # import peers only if needed
    before = peak = memory_now()
    read = copying_reader(method.open(store, layout), layout)
    for _ in range(count):
        read([int(rng.integers(len(layout.ids)))], one_layer(int(rng.integers(LAYERS))))
        now = memory_now()
        peak = {key: max(peak[key], now[key]) for key in now}
    return growth(before, peak)


def memory_by_method(
    folder: Path, methods: Mapping[str, ReadMethod], gigabytes: float, count: int
) -> Table:
    """Measure every method, on stores that have been written before."""
    rows: Rows = {
        name: in_fresh_process(read_many, name, folder / method.store, gigabytes, count)
        for name, method in methods.items()
    }
    plot = Plot("private MB", log=True)
    return Table("memory: all methods (synthetic)", rows, _note(count), plot)


def memory_by_size(folder: Path, gigabytes: float, count: int) -> Table:
    """Measure mser on stores of three sizes."""
    rows: Rows = {}
    for name in (MSER, "mser, HDF5, 32 at once"):
        for size in (gigabytes / 4, gigabytes, 2 * gigabytes):
            store, layout = folder / f"{METHODS[name].store}-{size}", draw_layout(size)
            store.mkdir()
            METHODS[name].write(store, layout)
            memory = in_fresh_process(read_many, name, store, size, count)
            kind = name.rpartition(",")[0]
            rows[f"{kind}, {size:.2g} GB"] = {"utterances in the store": len(layout.ids), **memory}
    title = "memory: by size of the store (synthetic)"
    return Table(title, rows, _note(count), Plot("private MB"))


def _note(count: int) -> str:
    return one_line(NOTE.format(count=count))
