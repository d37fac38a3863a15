"""A head's options are the keyword-only parameters of its constructor, checked by name and type."""

from collections.abc import Mapping
from inspect import Parameter, formatannotation, signature
from typing import Any, get_args, get_origin, get_type_hints

from .errors import require, unknown


def check_options(head: str, constructor: type, options: Mapping[str, object]) -> None:
    """Check the names and the types of ``options`` against the signature of ``constructor``.

    The values themselves (a dropout of 2) are for the constructor to judge. ``head`` is the name
    by which the messages call the constructor. An integer passes for a float, a list for a tuple,
    and a bool only for a bool.

    Raises:
        HeadError: an unknown option, or a value of another type.
    """
    hints = get_type_hints(constructor.__init__)  # type: ignore[misc]
    parameters = signature(constructor).parameters.values()
    known = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in known:
            raise unknown(f"{head} option", name, known)
        kind = formatannotation(hints[name])
        message = f"{head} option '{name}' must be of type {kind}, not {value!r}"
        require(_fits(value, hints[name]), message)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is tuple:  # tuple[X, ...]
        item = get_args(hint)[0]
        return isinstance(value, list | tuple) and all(_fits(v, item) for v in value)
    if hint in (int, float):
        numbers = int if hint is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, hint)
