"""What a training run is asked to do."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError, unknown
from ..metrics import METRICS

# What --set may change, beside head.OPTION.
_TUNABLE = ("epochs", "patience", "batch_size", "learning_rate", "weight_decay", "monitor")


@dataclass(frozen=True)
class TrainSettings:
    """Which head to train on what, and how.

    ``encoders`` names the modalities, each with the encoder whose features are meant (a name, a
    folder, an entry's key), or ``None`` where the cache holds those of one encoder only. ``out`` is
    the run folder; without it, a new one is made below ``runs``. ``layer``
    is ``mix``, ``last``, a number, or ``None`` for the head's own choice; ``protocol`` and
    ``classes`` are ``None`` for the corpus's own. Training stops when ``monitor`` on the validation
    part has not risen for ``patience`` epochs, and the epoch with the highest is kept.
    """

    head: str
    dataset: str
    cache: str | Path  # or the URL of an object store
    encoders: Mapping[str, str | None]
    out: Path | None = None
    runs: Path = Path("runs")
    layer: str | None = None
    protocol: str | None = None
    classes: str | None = None
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    epochs: int = 60
    patience: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    monitor: str = "weighted_f1"
    head_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is out of range, or unknown.
        """
        if self.monitor not in METRICS:
            raise unknown("metric", self.monitor, METRICS)
        for name in ("epochs", "patience", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give more than 0")
        if not self.weight_decay >= 0:
            raise UsageError(f"weight_decay is {self.weight_decay}: give 0 or more")
        distinct = {seed for seed in self.seeds if 0 <= seed < 2**63}
        if not self.seeds or len(distinct) < len(self.seeds):
            raise UsageError("seeds: give different numbers from 0 on, such as 0,1,2")
        if not self.encoders:
            raise UsageError("no modality is asked for: say speech, text, or both")

    def with_overrides(self, assignments: Iterable[str]) -> "TrainSettings":
        """Return the settings changed by ``key=value`` texts, each checked against its type.

        Raises:
            UsageError: a text is no assignment, its key is unknown, or its value of another type.
        """
        changes: dict[str, Any] = {}
        options = dict(self.head_options)
        types = {one.name: one.type for one in fields(self) if one.name in _TUNABLE}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"'{assignment}': write --set key=value")
            value = _parsed(text)
            if key.startswith("head."):
                options[key.removeprefix("head.")] = value
            elif key not in types:
                raise unknown("setting", key, [*_TUNABLE, "head.OPTION"])
            elif not _fits(value, types[key]):
                wanted = getattr(types[key], "__name__", types[key])
                raise UsageError(f"{key}={text}: a value of type {wanted} is wanted")
            else:
                changes[key] = value
        return replace(self, **changes, head_options=options)


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is wanted
