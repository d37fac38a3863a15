"""Measure in a fresh process, and measure the memory of a process."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

Result = dict[str, Any]
SAMPLING_INTERVAL = 0.005  # seconds


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process that ends afterwards; return its result."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_now() -> dict[str, float]:
    """Return the private, mapped and peak memory of this process in megabytes.

    Private memory (RssAnon) belongs to this process alone. Mapped memory (RssFile) are pages of
    the page cache that the process has touched: processes share them, and the kernel frees them
    when it needs memory. The peak (VmHWM) is that of both together. ``ru_maxrss`` would include
    the peak of the parent process.
    """
    names = {"RssAnon:": "private MB", "RssFile:": "mapped MB", "VmHWM:": "peak RSS MB"}
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {names[key]: int(kilobytes[0]) / 1e3 for key, *kilobytes in lines if key in names}


@contextmanager
def peak_private_memory() -> Iterator[dict[str, float]]:
    """Yield a dict that holds the private memory before the block and, at its end, the peak in it.

    A thread samples the memory every few milliseconds: Linux records only the peak of private and
    mapped memory together, and mapped memory grows with every page that is read.
    """
    memory = {"private MB before": memory_now()["private MB"]}
    peak, stop = 0.0, Event()

    def sample() -> None:
        nonlocal peak
        while True:
            peak = max(peak, memory_now()["private MB"])
            if stop.wait(SAMPLING_INTERVAL):
                return

    sampler = Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield memory
    finally:
        stop.set()
        sampler.join()
        memory["peak private MB"] = max(peak, memory_now()["private MB"])


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return by how much each value has grown."""
    return {name: after[name] - before[name] for name in before}
