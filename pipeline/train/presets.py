"""Presets: the settings of a paper by name, in small TOML files."""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_type_hints

from typing_extensions import TypedDict

from ..errors import UsageError, unknown
from ..modalities import MODALITIES
from ..validation import Seeds, checked, file_table, read_toml
from .settings import TUNABLE, TrainSettings


class Choices(TypedDict, total=False):
    """The keys of a preset that are not settings of ``--set``: what is trained, and on what."""

    head: str
    dataset: str
    protocol: str
    validation: str
    classes: str
    layer: str
    modalities: list[str]
    seeds: Seeds


CHOICES = tuple(Choices.__annotations__)

_types = get_type_hints(TrainSettings, include_extras=True)
Preset = file_table(
    TypedDict(  # type: ignore[operator]
        "Preset",
        {
            **Choices.__annotations__,
            **{name: _types[name] for name in TUNABLE},
            "head_options": dict[str, Any],
        },
        total=False,
    )
)
"""The keys of a preset file, each with the type of the setting."""


def preset(name: str) -> dict[str, Any]:
    """Return the content of a preset: keys of :data:`CHOICES`, of ``--set``, and ``head.OPTION``.

    ``name`` is the name of a preset of mser, or the path of a TOML file with the same keys.

    Raises:
        UsageError: the preset does not exist, or a key or value is invalid.
    """
    content: dict[str, Any] = {**checked(Preset, read(name, "presets"), f"preset {name}")}
    options = content.pop("head_options", {})
    return content | {f"head.{key}": value for key, value in options.items()}


def preset_names(kind: str) -> list[str]:
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
    elif name in preset_names(kind):
        source = _included(kind) / f"{name}.toml"
    else:
        raise unknown("preset (a file of your own ends in .toml)", name, preset_names(kind))
    return read_toml(source, "preset")


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
        UsageError: head or dataset is missing, or a value is invalid.
    """
    chosen = {key: value for key, value in values.items() if key in CHOICES}
    for key in ("head", "dataset"):
        if key not in chosen:
            raise UsageError(f"no {key} given: give --{key}, or a --preset with a {key}")
    encoders = others.pop("encoders")
    modalities = chosen.pop("modalities", MODALITIES)
    settings = TrainSettings(
        **chosen, **others, encoders={name: encoders.get(name) for name in modalities}
    )
    return settings.changed({key: value for key, value in values.items() if key not in CHOICES})


def _included(kind: str) -> Traversable:
    return files(__package__.rpartition(".")[0]) / kind
