"""A progress bar on a terminal, a line a minute in a log."""

import sys
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
