"""Presets: the settings of a paper by name, in small TOML files."""

from collections.abc import Mapping
from typing import Any, get_type_hints

from typing_extensions import TypedDict

from ..errors import UsageError
from ..modalities import USUAL
from ..preset_files import preset_file
from ..validation import Seeds, checked, file_table, read_toml
from .settings import TUNABLE, TargetNames, TrainSettings


class Choices(TypedDict, total=False):
    """The keys of a preset that are not settings of ``--set``: what is trained, and on what."""

    head: str
    dataset: str
    any_dataset: bool
    test_on: list[str]
    class_map: dict[str, Any]
    balance: bool
    protocol: str
    validation: str
    target: TargetNames
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
            "tune": dict[str, Any],
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
    content.pop("tune", None)  # the ranges of mser tune
    return content | {f"head.{key}": value for key, value in options.items()}


def read(name: str, kind: str) -> dict[str, Any]:
    """Return the content of a file that comes with mser, by name, or of the user's own, by path.

    Raises:
        UsageError: the file does not exist, or is not TOML.
    """
    return read_toml(preset_file(name, kind), "preset")


def combined(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset, replaced by those that the user gives.

    The classes and the protocol of a preset are specific to its own dataset. For another dataset, a
    preset with ``any_dataset`` leaves them to that dataset; other presets need them from the user.

    Raises:
        UsageError: the user gives another dataset than that of the preset, but not all of these.
    """
    if given.get("test_on"):  # it takes the place of the protocol and of the classes
        kept = {key: value for key, value in values.items() if key not in ("protocol", "classes")}
        return {**kept, **given}
    own, dataset = values.get("dataset"), given.get("dataset")
    if own is None or dataset in (None, own):
        return {**values, **given}
    specific = [key for key in ("protocol", "classes") if key in values and key not in given]
    if specific and not values.get("any_dataset"):
        options = " and ".join(f"--{key}" for key in specific)
        raise UsageError(
            f"the preset is for the dataset '{own}': for '{dataset}', also give {options}, or copy "
            f"the preset and change its {' and '.join(['dataset', *specific])}"
        )
    return {**{key: values[key] for key in values if key not in specific}, **given}


def settings_of(values: Mapping[str, Any], **others: Any) -> TrainSettings:
    """Return settings of what a preset and the user say, by the names of :func:`preset`.

    ``others`` are further fields of the settings; ``encoders`` there names those of modalities
    that are perhaps not asked for.

    Raises:
        UsageError: head or dataset is missing, or a value is invalid.
    """
    chosen = {key: value for key, value in values.items() if key in CHOICES}
    chosen.pop("any_dataset", None)
    for key in ("head", "dataset"):
        if key not in chosen:
            raise UsageError(f"no {key} given: give --{key}, or a --preset with a {key}")
    encoders = others.pop("encoders")
    modalities = chosen.pop("modalities", USUAL)
    settings = TrainSettings(
        **chosen, **others, encoders={name: encoders.get(name) for name in modalities}
    )
    return settings.changed({key: value for key, value in values.items() if key not in CHOICES})
