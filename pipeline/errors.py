"""The two ways a stage ends early: it failed, or it was asked for something that is not there."""

from collections.abc import Iterable
from difflib import get_close_matches


class PipelineError(Exception):
    """A stage could not go on; the message is one sentence that says what to do (exit code 1)."""


class UsageError(PipelineError):
    """A wrong argument; the message is one sentence that says what to do (exit code 2)."""


def unknown(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """Say that ``given`` is no known ``kind``, and suggest the nearest name."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UsageError(f"unknown {kind} '{given}': {hint}(known: {', '.join(names)})")
