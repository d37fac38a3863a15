"""What a process takes, in memory and in time; each measurement is taken in one of its own."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from mser.benchmarks.synthetic import (
    DATASET,
    DIM,
    DTYPE,
    FRAMES_A_SECOND,
    LAYERS,
    LONGEST,
    draw_shards,
    draw_utterances,
    make_entry,
    tiny_shards,
)
from mser.cache import FeatureCache

Result = dict[str, Any]


def quartiles(values: Sequence[float]) -> list[float]:
    """The median, then the first and the third quartile."""
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return [middle, first, third]


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_now() -> dict[str, float]:
    """Megabytes: of our own, of mapped files, and the most of both together so far.

    Private memory (RssAnon) is what a process takes from the others. Mapped pages (RssFile) are
    pages of the page cache that it has looked at: shared, and given up whenever the kernel needs
    room. VmHWM is what ``ru_maxrss`` reports too, but for that of the parent, which Linux mixes in.
    """
    names = {"RssAnon:": "private MB", "RssFile:": "mapped MB", "VmHWM:": "peak of both MB"}
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {names[key]: int(kilobytes[0]) / 1e3 for key, *kilobytes in lines if key in names}


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


def read_many(root: Path, count: int) -> Result:
    """Copy one layer each of ``count`` random utterances."""
    rng, buffer = np.random.default_rng(2), np.ones((1, LONGEST * FRAMES_A_SECOND, DIM), DTYPE)
    before = most = memory_now()
    entry = FeatureCache(root).open(DATASET)
    for _ in range(count):
        id, layer = entry.ids[int(rng.integers(len(entry.ids)))], int(rng.integers(LAYERS))
        (states,) = entry.read([id], [layer])
        np.copyto(buffer[:, : states.shape[1]], states)
        now = memory_now()
        most = {name: max(most[name], now[name]) for name in now}
    return {"utterances in it": len(entry.ids), **growth(before, most)}


def memory(folder: Path, gigabytes: float) -> Result:
    rows = {}
    for store in ("zarr", "hdf5"):
        for size in (gigabytes / 4, gigabytes, 2 * gigabytes):
            root = folder / f"{store}-{size}"
            make_entry(root, draw_shards(draw_utterances(size)), store=store)
            rows[f"mser, {store}, {size:.2g} GB"] = in_fresh_process(read_many, root, 5000)
    return {"growth over 5000 utterances": rows}


def open_large(root: Path, seed: int, started: float) -> Result:
    """Open an entry, read one utterance and two batches of 64; ``started`` is when we were."""
    rng, count = np.random.default_rng(seed), 0

    def milliseconds(work: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e3

    def some(number: int) -> list[str]:
        return [f"train/utt{at}" for at in rng.integers(count, size=number)]

    before = memory_now()
    begin = time.perf_counter()
    entry = FeatureCache(root).open(DATASET)
    count = len(entry.ids)
    entry.read(some(1))
    opened = {
        "from open to the first utterance, ms": (time.perf_counter() - begin) * 1e3,
        "the same, with Python's start and the imports, ms": (time.time() - started) * 1e3,
    }
    batches = [milliseconds(lambda: entry.read(some(64))) for _ in range(20)]
    return {
        **opened,
        "first batch of 64 (opens shards), ms": batches[0],
        "later batches of 64, ms": median(batches[1:]),
        **growth(before, memory_now()),
    }


def million(folder: Path, utterances: int) -> Result:
    begin = time.perf_counter()
    make_entry(folder, tiny_shards(utterances), layers=2, dim=8)
    made = time.perf_counter() - begin
    runs = [in_fresh_process(open_large, folder, seed, time.time()) for seed in range(7)]
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    rows = {name: {"of 7 processes": quartiles(values)} for name, values in columns.items()}
    return {f"{utterances} utterances, written in {made:.0f} s": rows}
