"""The exception of the heads, and checks of arguments."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import inf


class HeadError(ValueError):
    """A wrong argument or a wrong shape; the message is one sentence."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`HeadError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise HeadError(message)


def unknown(kind: str, given: str, known: Iterable[str]) -> HeadError:
    """Return an error for an unknown name; it suggests the nearest and lists the valid names."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return HeadError(f"unknown {kind} '{given}'{hint} (known: {', '.join(names) or 'none'})")


def require_sizes(**sizes: int) -> None:
    """Raise :class:`HeadError` unless every option is at least 1."""
    for name, size in sizes.items():
        require(size >= 1, f"{name} must be at least 1, not {size}")


def require_positive(**values: float) -> None:
    """Raise :class:`HeadError` unless every option is positive and finite."""
    for name, value in values.items():
        require(0 < value < inf, f"{name} must be positive and finite, not {value}")


def require_dropout(dropout: float) -> None:
    """Raise :class:`HeadError` unless the dropout rate is in [0, 1)."""
    require(0 <= dropout < 1, f"dropout must be in [0, 1), not {dropout}")


def require_weights(weights: Mapping[str, float]) -> None:
    """Raise :class:`HeadError` unless every weight of a loss term is finite and at least 0."""
    for name, weight in weights.items():
        require(
            0 <= weight < inf, f"the weight of {name} must be finite and at least 0, not {weight}"
        )
