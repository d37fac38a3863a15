"""Reading what is not in the page cache: it is dropped before, and read in a process of its own."""

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mser.benchmarks.read_methods import MEMORY_MAP, OURS, Contender
from mser.benchmarks.read_peers import PACKAGES, contenders
from mser.benchmarks.read_speed import MULTIPLE, copies, draw_requests
from mser.benchmarks.results import Plot, Rows, Table, ratios, turns
from mser.benchmarks.synthetic_features import draw_utterances
from mser.pipeline.train.determinism import keep_freed_memory
from mser.tests.support.page_cache import drop_from_page_cache

NOTE = """Before each measurement the files of the store are written out (`fsync`) and dropped from
the page cache (`posix_fadvise`), and `mincore` must find them gone; what a virtual machine's host,
or the disk itself, still holds is not dropped. A new process opens the store, and then reads random
batches of 32, which is timed. *Read* is what Linux counts as fetched from the disk meanwhile
(`read_bytes`), over what was asked for: Linux reads ahead, and a way may need more than it gives;
on the other side an utterance that is drawn twice is fetched once, and a way that fetches all
layers to give one has the others at hand then. The memory map is no limit here: other ways ask for
larger pieces at once than a map does, page by page."""


class Cold(NamedTuple):
    """Seconds for batches, the bytes that were asked for, and those that came from the disk."""

    seconds: float
    asked: int
    fetched: int


def cold(
    folder: Path, entrants: Mapping[str, Contender], gigabytes: float, batches: int, rounds: int
) -> list[Table]:
    """Measure stores that no process has open; this one must not open them either.

    Raises:
        StillCachedError: here they stay in the page cache, whatever is done.
    """
    tables = []
    for title, single in (("one layer", True), ("all layers", False)):
        found: dict[str, list[Cold]] = {name: [] for name in entrants}
        for number, name in turns([*entrants], rounds):
            store = folder / entrants[name].store
            drop_from_page_cache(store)
            task = (name, store, gigabytes, single, number, batches)
            found[name].append(_in_fork(*task))
        plot = Plot(f"× {MEMORY_MAP}", log=True)
        tables.append(
            Table(f"cold: {title} (synthetic)", _rows(found), " ".join(NOTE.split()), plot)
        )
    return tables


def _rows(found: Mapping[str, list[Cold]]) -> Rows:
    rate = {name: [one.asked / one.seconds / 1e6 for one in each] for name, each in found.items()}
    return {
        name: {
            "MB/s": median(rate[name]),
            "read × what was asked for": median(one.fetched / one.asked for one in each),
            f"× {MEMORY_MAP}": ratios(rate[name], rate[MEMORY_MAP]),
            MULTIPLE: ratios(rate[OURS], rate[name]),
        }
        for name, each in found.items()
    }


def read_cold(
    name: str, store: Path, gigabytes: float, single: bool, seed: int, batches: int
) -> Cold:
    """Open a store and read it, as a process that has done nothing else."""
    keep_freed_memory()
    made = draw_utterances(gigabytes)
    read = copies(contenders()[0][name].open(store, made), made)
    requests = draw_requests(made, single, seed, batches)
    before, begin = _fetched(), time.perf_counter()
    for batch, layers, _ in requests:
        read(batch, layers)
    seconds = time.perf_counter() - begin
    return Cold(seconds, sum(count for *_, count in requests), _fetched() - before)


def _in_fork(*task: object) -> Cold:
    """Call ``read_cold`` in a fork of a process that has imported everything and opened nothing."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *PACKAGES])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(read_cold, *task).result()  # type: ignore[arg-type]


def _fetched() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
