"""The ranges of a search: from the table ``[tune]`` of a preset file, or mser's own.

A range is a list of values, or a table with ``low`` and ``high`` and perhaps ``log`` or ``step``.
Whole numbers at both ends give whole numbers. Optuna's distributions hold the ranges.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any, Required

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from typing_extensions import TypedDict

from ...heads import HEADS, HeadError
from ...heads.options import check_options
from ..errors import UsageError, unknown
from ..train.examples import TrainingExamples
from ..train.jobs import build
from ..train.presets import read, settings_of
from ..train.settings import LBFGS, TUNABLE, TrainSettings
from ..validation import checked, file_table

Ranges = Mapping[str, BaseDistribution]
"""Setting → the values that a search may give it, by the names that ``--set`` knows."""

# These do not change what is learned, or they are what the trials are compared by.
_FIXED = ("monitor", "features", "save_every")
_SEARCHED = ("layer", *(name for name in TUNABLE if name not in _FIXED))

# In addition to the learning rate, the weight decay and the dropout, which most heads have.
_OF_HEAD: dict[str, dict[str, BaseDistribution]] = {
    "linear": {"head.pooling": CategoricalDistribution(("mean", "mean_std"))},
    "hbf": {"head.intra_weight": FloatDistribution(0.01, 1.0, log=True)},
    "hbaf": {"head.uni_modal_weight": FloatDistribution(0.1, 1.0)},
    "query": {"head.masking": FloatDistribution(0.0, 0.6)},
    **{
        name: {"head.temperature": FloatDistribution(0.02, 0.5, log=True)}
        for name in ("mgcma", "distribution", "instance")
    },
}


@file_table
class _Interval(TypedDict, total=False):
    low: Required[int | float]
    high: Required[int | float]
    log: bool
    step: int | float


def ranges_of(
    preset: str, values: Mapping[str, Any], settings: TrainSettings, examples: TrainingExamples
) -> dict[str, BaseDistribution]:
    """Return the ranges of a preset's ``[tune]``; without that table, mser's own for the head.

    Args:
        preset: the name or path of the preset.
        values: the settings of the search, by the names of a preset; the ranges replace some.
        settings: the same as settings.
        examples: what is trained on; a head is built with the ends of each range.

    Raises:
        UsageError: a range is not one, or a head cannot have the values at its ends.
    """
    declared = read(preset, "presets").get("tune")
    if not declared:
        return _own_ranges(settings, examples)
    declared = dict(declared)
    options = declared.pop("head_options", {})
    if not isinstance(options, Mapping):
        raise UsageError(f"{preset}: [tune.head_options] must be a table of ranges")
    declared |= {f"head.{name}": value for name, value in options.items()}
    ranges = {name: _range(name, value, f"{preset}, [tune]") for name, value in declared.items()}
    for name, distribution in ranges.items():
        for value in _ends(distribution):
            _check(name, value, values, settings, examples)
    return ranges


def current_values(ranges: Ranges, settings: TrainSettings) -> dict[str, Any]:
    """Return the values that the settings of a search themselves have, where a range is given."""
    parameters = signature(HEADS[settings.head]).parameters
    current = {}
    for name in ranges:
        option = name.removeprefix("head.")
        if option == name:
            current[name] = getattr(settings, name)
        elif option in settings.head_options:
            current[name] = settings.head_options[option]
        else:
            current[name] = parameters[option].default
    return current


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is in a range."""
    if isinstance(distribution, CategoricalDistribution):
        return any(value == c and type(value) is type(c) for c in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and distribution.low <= value <= distribution.high


def as_text(distribution: BaseDistribution) -> str:
    """Return a range in words, such as ``1e-05 … 0.001 (log)``."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101
    step = distribution.step if distribution.step not in (None, 1) else None
    more = [*(["log"] if distribution.log else []), *([f"step {step:g}"] if step else [])]
    bounds = f"{distribution.low:g} … {distribution.high:g}"
    return f"{bounds} ({', '.join(more)})" if more else bounds


def _own_ranges(settings: TrainSettings, examples: TrainingExamples) -> dict[str, BaseDistribution]:
    head, ranges = settings.head, dict(_OF_HEAD.get(settings.head, {}))
    optimizer = settings.optimizer_of(build(settings, examples))
    if optimizer == LBFGS:  # the strength of L2 is chosen in each training
        return {**ranges, "class_weights": CategoricalDistribution(("none", "balanced"))}
    rate = settings.learning_rate
    ranges["learning_rate"] = FloatDistribution(rate / 10, rate * 10, log=True)
    if optimizer == "adamw":
        ranges["weight_decay"] = FloatDistribution(1e-4, 0.3, log=True)
    if "dropout" in signature(HEADS[head]).parameters:
        ranges["head.dropout"] = FloatDistribution(0.0, 0.5)
    return ranges


def _range(name: str, value: Any, where: str) -> BaseDistribution:
    where = f"{where}: {name}"
    if not (name.startswith("head.") or name in _SEARCHED):
        raise unknown("setting in [tune]", name, [*_SEARCHED, "head_options.OPTION"])
    if isinstance(value, list):
        if len(set(map(repr, value))) < 2:
            raise UsageError(f"{where} = {value}: give two or more different values")
        if not all(isinstance(choice, bool | int | float | str) for choice in value):
            raise UsageError(f"{where} = {value}: give texts, numbers, true or false")
        return CategoricalDistribution(value)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{where} = {value!r}: give a list of values, or a table such as "
            "{low = 1e-5, high = 1e-3, log = true}"
        )
    interval = checked(_Interval, value, where)
    if not interval["low"] < interval["high"]:
        raise UsageError(f"{where}: low must be less than high")
    whole = all(isinstance(interval[end], int) for end in ("low", "high"))
    step = interval.get("step")
    try:
        if whole and not isinstance(step, float):
            return IntDistribution(
                int(interval["low"]), int(interval["high"]), interval.get("log", False), step or 1
            )
        low, high = float(interval["low"]), float(interval["high"])
        return FloatDistribution(low, high, interval.get("log", False), step)
    except ValueError as error:
        raise UsageError(f"{where}: {str(error).rstrip('.')}: change the range") from error


def _ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101
    return distribution.low, distribution.high


def _check(
    name: str,
    value: Any,
    values: Mapping[str, Any],
    settings: TrainSettings,
    examples: TrainingExamples,
) -> None:
    """Raise an error unless a head can be trained with this value of a setting."""
    option = name.removeprefix("head.")
    try:
        if option != name:
            check_options(settings.head, HEADS[settings.head], {option: value})
        others = {"cache": settings.cache, "encoders": settings.encoders}
        build(settings_of({**values, name: value}, **others), examples)
    except (UsageError, HeadError) as error:
        raise UsageError(f"[tune]: {name} = {value!r} is not possible: {error}") from error
