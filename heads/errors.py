"""What a head says when it is asked for something that it cannot do."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import inf


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


def require_sizes(**sizes: int) -> None:
    """Raise :class:`HeadError` unless every option, by its name, is at least 1."""
    for name, size in sizes.items():
        require(size >= 1, f"{name} must be at least 1, not {size}")


def require_positive(**values: float) -> None:
    """Raise :class:`HeadError` unless every option, by its name, is positive and finite."""
    for name, value in values.items():
        require(0 < value < inf, f"{name} must be positive, not {value}")


def require_dropout(dropout: float) -> None:
    """Raise :class:`HeadError` unless a dropout is in [0, 1)."""
    require(0 <= dropout < 1, f"dropout must be in [0, 1), not {dropout}")


def require_weights(weights: Mapping[str, float]) -> None:
    """Raise :class:`HeadError` unless every weight of a loss, by its term, is at least 0."""
    for name, weight in weights.items():
        require(0 <= weight < inf, f"the weight of {name} must not be negative, not {weight}")
