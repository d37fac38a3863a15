"""What a user writes or leaves out: ``key=value``, ``name(key=value)``, the cache, a run."""

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import UsageError

_WITH_OPTIONS = re.compile(r"(?P<name>[^()]+)\((?P<options>.*)\)")


def default_cache() -> str:
    """Return the cache if none is given: ``$MSER_CACHE``, else ``~/.cache/mser``."""
    return os.environ.get("MSER_CACHE") or "~/.cache/mser"


def place_of(cache: Any) -> str:
    """Return the folder or URL of a cache that is given as a path, a text or a cache."""
    return os.fspath(cache) if isinstance(cache, str | os.PathLike) else str(cache.root)


def path_of(run: Any) -> Path:
    """Return the folder of a run that is given as a path, a text or a run."""
    return Path(getattr(run, "path", run)).expanduser()


def parsed_value(text: str) -> Any:
    """Return the value of a text, as in TOML; a text that TOML does not know is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def assigned(assignments: Iterable[str]) -> dict[str, Any]:
    """Return the values of ``key=value`` texts by their keys.

    Raises:
        UsageError: a text is not an assignment.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set '{assignment}': write it as key=value")
        values[key] = parsed_value(text)
    return values


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
