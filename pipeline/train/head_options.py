"""One form for equal options of a head, so that equal settings give equal names of run folders."""

from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ...heads import HEADS

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def in_one_form(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not at the default of the head, sorted by name.

    Tuples are lists, and whole numbers for a float are floats. Unknown options, and values of a
    wrong type, stay as they are: the head refuses them.
    """
    if head not in HEADS:
        return dict(sorted(options.items()))
    hints = get_type_hints(HEADS[head].__init__)
    parameters = signature(HEADS[head]).parameters
    defaults = {name: _as_list(parameter.default) for name, parameter in parameters.items()}
    values = {name: _value(value, hints.get(name)) for name, value in sorted(options.items())}
    return {k: value for k, value in values.items() if k not in defaults or value != defaults[k]}


def _value(value: Any, hint: Any) -> Any:
    if hint is not None:
        given = tuple(value) if isinstance(value, list) else value
        with suppress(ValidationError):
            value = TypeAdapter(hint, config=_STRICT).validate_python(given)
    return _as_list(value)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
