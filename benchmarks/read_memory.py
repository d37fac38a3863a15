"""What reading takes of memory, each way in a fresh process."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mser.benchmarks.processes import Result, growth, in_fresh_process, memory_now
from mser.benchmarks.read_methods import CONTENDERS, OURS, Contender
from mser.benchmarks.read_peers import contenders
from mser.benchmarks.read_speed import copies, one_layer
from mser.benchmarks.results import Plot, Rows, Table
from mser.benchmarks.synthetic_features import LAYERS, draw_utterances

NOTE = """Growth of a fresh process since before it opened the store, looked at after each of
{count} random utterances, of which one layer is read. *Private* (`RssAnon`) is what a process takes
from the others. *Mapped* (`RssFile`) are pages of the page cache that it has looked at: they grow
up to the size of what was read, are shared by all processes that read the store, and the kernel
takes them back when memory is wanted. *Peak of both* is `VmHWM`; `ru_maxrss` starts on Linux at the
peak of the process that started this one. A way's libraries are imported before, but what it
imports later, on opening, counts."""


def read_many(name: str, store: Path, gigabytes: float, count: int) -> Result:
    """Copy one layer each of ``count`` random utterances."""
    made, rng = draw_utterances(gigabytes), np.random.default_rng(2)
    contender = CONTENDERS.get(name) or contenders()[0][name]  # peers only where they are asked for
    before = most = memory_now()
    read = copies(contender.open(store, made), made)
    for _ in range(count):
        read([int(rng.integers(len(made.ids)))], one_layer(int(rng.integers(LAYERS))))
        now = memory_now()
        most = {key: max(most[key], now[key]) for key in now}
    return growth(before, most)


def memory(folder: Path, entrants: Mapping[str, Contender], gigabytes: float, count: int) -> Table:
    """Every way, on stores that are there."""
    rows: Rows = {
        name: in_fresh_process(read_many, name, folder / one.store, gigabytes, count)
        for name, one in entrants.items()
    }
    return Table("memory: all ways (synthetic)", rows, _note(count), Plot("private MB", log=True))


def memory_by_size(folder: Path, gigabytes: float, count: int) -> Table:
    """Ours, on ever larger stores."""
    rows: Rows = {}
    for name in (OURS, "mser, HDF5, 32 at once"):
        for size in (gigabytes / 4, gigabytes, 2 * gigabytes):
            store, made = folder / f"{CONTENDERS[name].store}-{size}", draw_utterances(size)
            store.mkdir()
            CONTENDERS[name].write(store, made)
            found = in_fresh_process(read_many, name, store, size, count)
            kind = name.rpartition(",")[0]
            rows[f"{kind}, {size:.2g} GB"] = {"utterances in it": len(made.ids), **found}
    return Table("memory: ever larger stores (synthetic)", rows, _note(count), Plot("private MB"))


def _note(count: int) -> str:
    return " ".join(NOTE.format(count=count).split())
