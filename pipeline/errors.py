"""The expected errors of the pipeline: a stage failed, or an argument is wrong."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class PipelineError(Exception):
    """A stage failed; the message is one sentence with the problem and what to do (exit code 1)."""


class NotFiniteError(PipelineError):
    """The loss of a training became infinite or not a number."""


class UsageError(PipelineError):
    """A wrong argument; the message is one sentence with what to do (exit code 2)."""


def unknown(kind: str, given: str, known: Iterable[str], meant: str | None = None) -> UsageError:
    """Return an error: ``given`` is not a known ``kind``; it suggests ``meant`` or the nearest."""
    names = sorted(known)
    near = [meant] if meant else get_close_matches(given, names, n=1)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return UsageError(f"unknown {kind} '{given}'{hint} (known: {', '.join(names)})")


@contextmanager
def needs_extra(extra: str, *packages: str) -> Iterator[None]:
    """Turn the failed import of an optional package into a sentence that says how to install it.

    Raises:
        UsageError: one of ``packages``, which the extra ``mser[extra]`` installs, is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in packages:
            raise
        raise UsageError(f"this needs the package {name}: pip install 'mser[{extra}]'") from error
