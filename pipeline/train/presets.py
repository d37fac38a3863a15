"""Presets: the settings of a paper by name, in small TOML files."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ..errors import UsageError, unknown
from .settings import TUNABLE, TrainSettings

MODALITIES = ("speech", "text")
CHOICES = ("head", "dataset", "protocol", "classes", "layer", "modalities", "seeds")
"""Keys of a preset, in addition to those of ``--set`` and the table ``[head_options]``."""

_LISTS: dict[str, tuple[type, str]] = {
    "modalities": (str, 'a list of names, such as ["speech", "text"]'),
    "seeds": (int, "a list of numbers, such as [0, 1, 2]"),
}


def preset(name: str) -> dict[str, Any]:
    """Return the content of a preset: keys of :data:`CHOICES`, of ``--set``, and ``head.OPTION``.

    ``name`` is the name of a preset of mser, or the path of a TOML file with the same keys.

    Raises:
        UsageError: the preset does not exist, or a key or value is invalid.
    """
    content = read(name, "presets")
    options = content.pop("head_options", {})
    for key in content:
        if key not in (*CHOICES, *TUNABLE):
            raise unknown(f"key in preset {name}", key, [*CHOICES, *TUNABLE, "head_options"])
    check_choices(content, f"preset {name}")
    if not isinstance(options, dict):
        raise UsageError(f"preset {name}: head_options must be a table of the head's options")
    return content | {f"head.{key}": value for key, value in options.items()}


def names(kind: str) -> list[str]:
    """Return the names of the ``presets`` or ``ablations`` that come with mser."""
    return sorted(file.name.removesuffix(".toml") for file in _included(kind).iterdir())


def read(name: str, kind: str) -> dict[str, Any]:
    """Return the content of a file that comes with mser, by name, or of the user's own, by path.

    Raises:
        UsageError: the file does not exist, or is not TOML.
    """
    own = Path(name).expanduser()
    if name.endswith(".toml"):
        source: Traversable = own
    elif name in names(kind):
        source = _included(kind) / f"{name}.toml"
    else:
        raise unknown("preset (a file of your own ends in .toml)", name, names(kind))
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"preset {name}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"preset {name} is not TOML: {error}") from None


def check_choices(said: Mapping[str, Any], where: str) -> None:
    """Check the types of what a file says of :data:`CHOICES`; ``where`` names it.

    Raises:
        UsageError: a value is of another type.
    """
    for key in CHOICES:
        kind, form = _LISTS.get(key, (None, "a text in quotation marks"))
        value = said.get(key, "" if kind is None else [])
        if kind is None:
            fits = isinstance(value, str)
        else:
            fits = isinstance(value, list) and all(type(one) is kind for one in value)
        if not fits:
            raise UsageError(f"{where}: {key} = {value!r}: write {form}")


def combined(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset, replaced by those that the user gives.

    For another dataset the classes and the protocol of the preset are dropped: they are specific to
    the preset's own dataset.
    """
    kept = dict(values)
    if given.get("dataset", kept.get("dataset")) != kept.get("dataset"):
        kept = {key: kept[key] for key in kept if key not in ("classes", "protocol")}
    return {**kept, **given}


def settings_of(values: Mapping[str, Any], **others: Any) -> TrainSettings:
    """Return settings of what a preset and the user say, by the names of :func:`preset`.

    ``others`` are further fields of the settings; ``encoders`` there names those of modalities
    that are perhaps not asked for.

    Raises:
        UsageError: neither head nor dataset is said, or a value cannot be.
    """
    chosen = {key: value for key, value in values.items() if key in CHOICES}
    for key in ("head", "dataset"):
        if key not in chosen:
            raise UsageError(f"no {key} is said: give --{key}, or a --preset that says it")
    encoders = others.pop("encoders")
    modalities = chosen.pop("modalities", MODALITIES)
    chosen["seeds"] = tuple(chosen.get("seeds", (0,)))
    settings = TrainSettings(
        **chosen, **others, encoders={one: encoders.get(one) for one in modalities}
    )
    return settings.changed({key: value for key, value in values.items() if key not in CHOICES})


def _included(kind: str) -> Traversable:
    return files(__package__.rpartition(".")[0]) / kind
