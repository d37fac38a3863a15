"""A head's options are the keyword-only parameters of its constructor, checked by name and type."""

from collections.abc import Mapping
from inspect import Parameter, formatannotation, signature
from typing import get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import HeadError, unknown

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)  # 1 is not True, and "1" is not 1


def check_options(head: str, constructor: type, options: Mapping[str, object]) -> None:
    """Check the names and the types of ``options`` against the signature of ``constructor``.

    The constructor checks the values (a dropout of 2 is out of range). ``head`` is the name of the
    head in the messages. A whole number is allowed for a float, and a list for a tuple.

    Raises:
        HeadError: an unknown option, or a value of another type.
    """
    hints = get_type_hints(constructor.__init__)  # type: ignore[misc]
    parameters = signature(constructor).parameters.values()
    known = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in known:
            raise unknown(f"{head} option", name, known)
        try:
            TypeAdapter(hints[name], config=_STRICT).validate_python(
                tuple(value) if isinstance(value, list) else value
            )
        except ValidationError:
            kind = formatannotation(hints[name])
            example = '["a", "b"]' if "str" in kind else "[1, 2]"
            written = f", written as {example}" if kind.startswith("tuple") else ""
            raise HeadError(
                f"{head} option '{name}' must be of type {kind}{written}, not {value!r}"
            ) from None
