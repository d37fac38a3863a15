"""A progress bar on a terminal, one line per minute in a log."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

_LOG_SECONDS = 60.0


class _Log(tqdm):  # type: ignore[type-arg]
    """A bar that prints each update on a new line, for log files."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{msg or self}\n")
        self.fp.flush()


def progress(total: int, what: str, unit: str) -> Any:
    """Return a progress bar on standard error: a context manager with ``update(count)``."""
    return _bar(total=total, desc=what, unit=unit)


class StatusBar:
    """A bar whose position and text the caller computes, on standard error; a context manager.

    On a terminal the text follows a bar. In a log, the text is a line, a minute apart at least.
    """

    def __init__(self) -> None:
        place = "{percentage:3.0f}%" + ("|{bar:10}|" if sys.stderr.isatty() else "")
        self._bar = _bar(
            total=1.0, miniters=0, bar_format=f"{place} {{desc}}", dynamic_ncols=sys.stderr.isatty()
        )

    def __enter__(self) -> "StatusBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: float, text: str) -> None:
        """Show the text, and ``done`` as a share of the work, 0 to 1."""
        self._bar.n = min(max(done, 0.0), 1.0)
        first = not self._bar.desc
        self._bar.set_description_str(text, refresh=first and sys.stderr.isatty())
        self._bar.update(0)

    def keep(self, line: str) -> None:
        """Print a line that stays above the bar; not in a log, which has a line a minute."""
        if sys.stderr.isatty():
            self._bar.write(line, file=sys.stderr)


def _bar(**options: Any) -> Any:
    if sys.stderr.isatty():
        return tqdm(leave=False, **options)
    return _Log(
        leave=False,
        ascii=True,
        mininterval=_LOG_SECONDS,
        maxinterval=_LOG_SECONDS,
        delay=_LOG_SECONDS,
        **options,
    )


def duration(seconds: float) -> str:
    """Return a time as text for a person, such as ``42 s``, ``7 min`` or ``3.4 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def times(factor: float) -> str:
    """Return a factor as text for a person, such as ``0.8``, ``4.2`` or ``52``."""
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"


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
