"""Measure reads of files that are not in the page cache, each in a new process."""

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mser.benchmarks.read_methods import MEMORY_MAP, MSER, ReadMethod
from mser.benchmarks.read_peers import PACKAGES, available_methods
from mser.benchmarks.read_speed import MSER_SPEED, copying_reader, draw_requests
from mser.benchmarks.results import Plot, Rows, Table, one_line, ratios, shuffled_turns
from mser.benchmarks.synthetic_features import draw_layout
from mser.pipeline.train.determinism import keep_freed_memory
from mser.tests.support.page_cache import drop_from_page_cache

NOTE = """Before each measurement the files of the store are written to the disk (`fsync`) and
dropped from the page cache (`posix_fadvise`), and `mincore` must confirm it. Caches of the disk
itself, or of the host of a virtual machine, are not dropped. A new process opens the store and
reads random batches of 32; both are timed. *Bytes read ÷ bytes requested* compares the bytes that
Linux fetched from the disk meanwhile (`read_bytes`) with the bytes of the requested features. It
can be above 1, because Linux reads ahead and some methods read more than they return. It can be
below 1, because an utterance that is drawn twice is fetched once, and a method that fetches all
layers to return one has the others in memory for the next request. Here the memory map is not the
upper limit: a map fetches page by page, and other methods request larger pieces. *pread, requested
ahead* is no library: it asks the kernel for all pieces of a batch in mser's shards
(`posix_fadvise`) and reads each by one call, with all offsets in Python lists. In mser's shards a
layer of all utterances is one piece, so all layers of an utterance are 13 pieces; one file per
utterance holds them in one, which a disk reads faster, and for one layer fetches all."""
_SINGLE = 4  # times as many batches of one layer, which are small


class ColdRead(NamedTuple):
    """One measurement."""

    seconds: float
    requested: int  # bytes of the requested features
    fetched: int  # bytes that came from the disk


def measure_cold(
    folder: Path, methods: Mapping[str, ReadMethod], gigabytes: float, batches: int, rounds: int
) -> list[Table]:
    """Measure stores that no process has open; do not open them in this process before.

    Raises:
        StillCachedError: the files cannot be dropped from the page cache.
    """
    tables = []
    for title, single in (("one layer", True), ("all layers", False)):
        reads: dict[str, list[ColdRead]] = {name: [] for name in methods}
        for number, name in shuffled_turns([*methods], rounds):
            store = folder / methods[name].store
            drop_from_page_cache(store)
            count = batches * (_SINGLE if single else 1)
            reads[name].append(_in_fork(name, store, gigabytes, single, number, count))
        plot = Plot(f"speed ÷ {MEMORY_MAP}", log=True)
        tables.append(Table(f"cold: {title} (synthetic)", _rows(reads), one_line(NOTE), plot))
    return tables


def _rows(reads: Mapping[str, list[ColdRead]]) -> Rows:
    rates = {
        name: [read.requested / read.seconds / 1e6 for read in measured]
        for name, measured in reads.items()
    }
    return {
        name: {
            "MB/s": median(rates[name]),
            "bytes read ÷ bytes requested": median(r.fetched / r.requested for r in measured),
            f"speed ÷ {MEMORY_MAP}": ratios(rates[name], rates[MEMORY_MAP]),
            MSER_SPEED: ratios(rates[MSER], rates[name]),
        }
        for name, measured in reads.items()
    }


def read_cold(
    name: str, store: Path, gigabytes: float, single: bool, seed: int, batches: int
) -> ColdRead:
    """Open a store and read it, in a process that has opened nothing before."""
    keep_freed_memory()
    layout, method = draw_layout(gigabytes), available_methods()[0][name]
    requests = draw_requests(layout, single, seed, batches)
    before, begin = _bytes_fetched(), time.perf_counter()
    read = copying_reader(method.open(store, layout), layout)
    for batch, layers, _ in requests:
        read(batch, layers)
    seconds = time.perf_counter() - begin
    return ColdRead(seconds, sum(count for *_, count in requests), _bytes_fetched() - before)


def _in_fork(*task: object) -> ColdRead:
    """Call ``read_cold`` in a fork of a process that has imported everything and opened nothing."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *PACKAGES])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(read_cold, *task).result()  # type: ignore[arg-type]


def _bytes_fetched() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
