"""A process that keeps an object between calls, so that models are loaded once."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

_kept: list[Any] = []  # in the process: its object


class PersistentProcess:
    """A new process that calls ``make`` with ``arguments`` and keeps the object it returns.

    The process starts at once, and this process does not wait for it. ``environment`` is set in
    the new process alone, before it starts: some variables are read only then.
    """

    def __init__(
        self, make: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] = {}
    ) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        with _environment(environment):
            self.made: Future[None] = self.pool.submit(_make, make, arguments)

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of the object; an error of ``make`` is raised here."""
        self.made.result()
        return self.pool.submit(_call, method, arguments)

    def __enter__(self) -> "PersistentProcess":
        return self

    def __exit__(self, *raised: object) -> None:
        self.pool.submit(_close).result()
        self.pool.shutdown()


def _make(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _kept.append(make(*arguments))


def _close() -> None:
    for kept in _kept:
        if hasattr(kept, "close"):
            kept.close()


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_kept[0], method)(*arguments)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
