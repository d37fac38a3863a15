"""Validation of settings and of the TOML files that hold them, by pydantic.

Settings are frozen dataclasses and files are typed dictionaries. The types of their fields say
what is allowed; every error becomes one sentence that names the field, the value and what to give.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import wraps
from importlib.resources.abc import Traversable
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from .errors import UsageError, unknown
from .option_texts import place_of
from .plugins import Plugins, is_spec

T = TypeVar("T")

AnyPath = Annotated[Path, Field(strict=False)]  # or a string


def _place(cache: Any) -> Any:
    known = isinstance(cache, str | PathLike) or hasattr(cache, "root")
    return place_of(cache) if known else cache  # pydantic refuses anything else


CachePlace = Annotated[str | Path, BeforeValidator(_place)]
"""A folder or URL, or a :class:`mser.FeatureCache`."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(strict=False)]

# pydantic's error type → what to give instead.
_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a table",
    "string_type": "a text in quotation marks",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
}

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def one_of(kind: str, choices: Iterable[str]) -> AfterValidator:
    """Return a validator of texts that are names of a ``kind``, such as the keys of a registry."""

    def check(name: str) -> str:
        if name not in choices:
            raise PydanticCustomError("unknown", "unknown", {"kind": kind, "known": [*choices]})
        return name

    return AfterValidator(check)


def plugin_of(plugins: Plugins[Any], also: Iterable[str] = ()) -> AfterValidator:
    """Return a validator of names that a user gives, of mser's own or of plug-ins; it loads them.

    The validated name is the one in the table; ``also`` are further names that are allowed.
    """

    def check(name: str) -> str:
        if name in also:
            return name
        if not (name in plugins.table or is_spec(name) or name.endswith(".py")):
            known = [*plugins.names(), *also]
            if name not in known:
                context = {"kind": plugins.kind, "known": known}
                raise PydanticCustomError("unknown", "unknown", context)
        return plugins.admit(name)

    return AfterValidator(check)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def settings(kind: type[T]) -> type[T]:
    """Make a frozen dataclass that validates its fields by their types.

    Its constructor raises :class:`UsageError` for the first value that does not fit.
    """
    validated: Any = dataclass(kind, frozen=True, config=ConfigDict(extra="forbid", strict=True))
    construct: Callable[..., None] = validated.__init__

    @wraps(construct)
    def __init__(self: Any, *args: Any, **fields: Any) -> None:  # noqa: N807
        try:
            construct(self, *args, **fields)
        except ValidationError as error:
            raise _usage_error(error, validated.__annotations__) from None

    validated.__init__ = __init__
    return cast("type[T]", validated)


def file_table(kind: type[T]) -> type[T]:
    """Make a typed dictionary that :func:`checked` can take: no other keys, no other types."""
    kind.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return kind


def checked(kind: type[T], content: Mapping[str, Any], where: str) -> T:
    """Return the content of a file, or of a table in it, that is a :func:`file_table` of this kind.

    Args:
        kind: the typed dictionary.
        content: what the file holds.
        where: the file, and the place in it, for the message.

    Raises:
        UsageError: a key is unknown or missing, or a value does not fit.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _usage_error(error, kind.__annotations__, where) from None


def read_toml(path: Traversable, what: str) -> dict[str, Any]:
    """Read a TOML file; ``what`` says in messages what it is.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}: give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} {path} is not TOML: {error}") from None


def _usage_error(error: ValidationError, known: Iterable[str], where: str = "") -> UsageError:
    """Return the sentence about the first error; an unknown key comes first.

    A mistyped key is unknown, and also makes its correct key missing.
    """
    details: ErrorDetails = min(
        error.errors(include_url=False), key=lambda item: item["type"] not in _UNKNOWN_KEY
    )
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    key = str(details["loc"][0])
    prefix = f"{where}: " if where else ""
    if kind in _UNKNOWN_KEY:
        return unknown(f"key in {where}" if where else "setting", key, known)
    if kind == "missing":
        return UsageError(f"{prefix}{key} is missing: add it")
    if kind == "unknown":
        field = str(context["kind"])
        return unknown(f"{field} in {where}" if where else field, str(value), context["known"])
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else details["msg"]
    return UsageError(f"{prefix}{key} = {value!r}: give {wanted}")
