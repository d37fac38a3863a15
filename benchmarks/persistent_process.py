"""A fresh process that stays, with an object in it: what it has loaded need not be loaded again."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

_here: list[Any] = []  # in the process: its object


class Held:
    """The process, in which ``make`` is called with ``arguments`` at once, side by side with ours.

    ``environment`` is set for it alone: some of it is read only when a process starts.
    """

    def __init__(
        self, make: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] = {}
    ) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        with _set(environment):
            self.made: Future[None] = self.pool.submit(_make, make, arguments)

    def begin(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of the object; a failure of ``make`` is raised here."""
        self.made.result()
        return self.pool.submit(_call, method, arguments)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *raised: object) -> None:
        self.pool.submit(_close).result()
        self.pool.shutdown()


def _make(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _here.append(make(*arguments))


def _close() -> None:
    for one in _here:
        if hasattr(one, "close"):
            one.close()


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_here[0], method)(*arguments)


@contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
