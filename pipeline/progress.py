"""A progress bar on a terminal, one line per minute in a log."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm


class _Log(tqdm):  # type: ignore[type-arg]
    """A bar that prints each update on a new line, for log files."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{msg or self}\n")
        self.fp.flush()


def progress(total: int, what: str, unit: str) -> Any:
    """Return a progress bar on standard error: a context manager with ``update(count)``."""
    if sys.stderr.isatty():
        return tqdm(total=total, desc=what, unit=unit, leave=False)
    return _Log(
        total=total,
        desc=what,
        unit=unit,
        leave=False,
        ascii=True,
        mininterval=60,
        maxinterval=60,
        delay=60,
    )


def print_note(sentence: str) -> None:
    """Print a sentence on standard error, without breaking a progress bar."""
    if sys.stderr.isatty():
        tqdm.write(sentence, file=sys.stderr)
    else:
        sys.stderr.write(f"{sentence}\n")


def stepping(what: str, unit: str) -> Callable[[Sequence[str]], Iterator[str]]:
    """Return a function that yields the items of a list and shows a progress bar."""

    def through(names: Sequence[str]) -> Iterator[str]:
        with progress(len(names), what, unit) as bar:
            for name in names:
                yield name
                bar.update()

    return through
