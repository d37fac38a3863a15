"""What a head says when it is asked for something that it cannot do."""

from collections.abc import Iterable
from difflib import get_close_matches


class HeadError(ValueError):
    """A wrong argument or a wrong shape; the message is one sentence that says what to do."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`HeadError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise HeadError(message)


def unknown(kind: str, given: str, known: Iterable[str]) -> HeadError:
    """Say that ``given`` is no known ``kind``; suggest the nearest name and list the valid ones."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return HeadError(f"unknown {kind} '{given}': {hint}(known: {', '.join(names) or 'none'})")
