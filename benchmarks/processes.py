"""What a process takes, in memory and in time; each measurement is taken in one of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

Result = dict[str, Any]
LOOK = 0.005  # seconds


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


@contextmanager
def most_private() -> Iterator[dict[str, float]]:
    """Fill in, at the end, the private memory before, and the most of it within.

    It is looked at every few milliseconds: Linux keeps the peak of private and mapped pages
    together only, and mapped ones grow with what is read.
    """
    found = {"private MB before": memory_now()["private MB"]}
    most, over = 0.0, Event()

    def look() -> None:
        nonlocal most
        while True:
            most = max(most, memory_now()["private MB"])
            if over.wait(LOOK):
                return

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found["peak private MB"] = max(most, memory_now()["private MB"])


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}
