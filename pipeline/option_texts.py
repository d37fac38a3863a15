"""Values that a user writes as text: ``key=value``, and ``name(key=value, …)``."""

import re
import tomllib
from typing import Any

from .errors import UsageError

_WITH_OPTIONS = re.compile(r"(?P<name>[^()]+)\((?P<options>.*)\)")


def parsed_value(text: str) -> Any:
    """Return the value of a text, as in TOML; a text that TOML does not know is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def with_options(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of ``name(key=value, …)``; without brackets, no options.

    Raises:
        UsageError: an option is not written as ``key=value``.
    """
    match = _WITH_OPTIONS.fullmatch(text)
    if match is None:
        return text, {}
    options: dict[str, Any] = {}
    for part in filter(None, map(str.strip, match["options"].split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"'{text}': write '{part}' as key=value")
        options[key.strip()] = parsed_value(value)
    return match["name"], options
