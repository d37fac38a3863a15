"""A progress bar on a terminal, a line a minute in a log."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm


class _Log(tqdm):  # type: ignore[type-arg]
    """A bar that prints itself on a line of its own, for files that keep what is printed."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{msg or self}\n")
        self.fp.flush()


def progress(total: int, what: str, unit: str) -> Any:
    """Return a bar on standard error; use it as a context and call ``update``."""
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
    """Say something on standard error while a bar may be there."""
    if sys.stderr.isatty():
        tqdm.write(sentence, file=sys.stderr)
    else:
        sys.stderr.write(f"{sentence}\n")


def stepping(what: str, unit: str) -> Callable[[Sequence[str]], Iterator[str]]:
    """Return a function that goes through a list and shows how far it is."""

    def through(names: Sequence[str]) -> Iterator[str]:
        with progress(len(names), what, unit) as bar:
            for name in names:
                yield name
                bar.update()

    return through
