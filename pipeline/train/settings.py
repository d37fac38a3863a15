"""What a training run is asked to do."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from ..compute import Backend, WorkerSizing
from ..errors import UsageError, unknown
from ..evaluation.metrics import METRICS
from ..modalities import names
from ..validation import AnyPath, Count, NotNegative, Positive, Seeds, one_of
from ..validation import settings as settings_class

AMP = {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("constant", "linear", "cosine")
CLASS_WEIGHTS = ("none", "balanced")
FEATURES = ("auto", "memory", "stream")

# What --set may change, beside head.OPTION.
TUNABLE = (
    *("epochs", "patience", "batch_size", "accumulate"),
    *("optimizer", "learning_rate", "weight_decay", "schedule", "warmup", "clip"),
    *("class_weights", "amp", "monitor", "features", "save_every"),
)
# No number depends on these.
_SILENT = (
    *("out", "runs", "features", "save_every"),
    *("workers", "scheduler", "slurm", "wait_minutes"),
)


def _one(*_: object) -> int:
    return 1


# One training at a time in a process; how many processes, the user says.
_WORKER_SIZING = WorkerSizing(workers=_one, threads=_one)


@settings_class
class TrainSettings:
    """Which head to train on what, and how.

    ``encoders`` names the modalities, each with the encoder whose features are meant (a name, a
    folder, an entry's key), or ``None`` where the cache holds those of one encoder only. ``layer``
    is ``mix``, ``last``, a number, several numbers, or one of these for each modality
    (``speech=0,1,2,text=last``), or ``None`` for the head's own choice; ``protocol`` and
    ``classes`` are ``None`` for the corpus's own. ``out`` is the run folder; without it, it is one
    below ``runs`` whose name ends with a hash of the settings.

    Training: Adam or AdamW (``optimizer``) with ``learning_rate``, over ``schedule`` (constant,
    linear or cosine to zero at the last of ``epochs``) after a linear rise in the first ``warmup``
    of it (a share); gradients of ``accumulate`` batches of ``batch_size`` utterances are added up
    for a step, and cut to the norm ``clip`` where it is not 0. ``class_weights`` balanced weighs a
    class by the inverse of its frequency in the training part. ``amp`` computes in bfloat16 or
    float16 where that is safe. It stops when ``monitor`` on the validation part (a metric, or
    ``loss``) has not improved for ``patience`` epochs, and keeps the best epoch.

    No number depends on the rest: ``features`` are kept in memory (that of the GPU), streamed from
    the cache, or whichever fits; the state is saved every ``save_every`` seconds; several trainings
    run side by side in ``workers`` processes (0 is this one), at a Dask ``scheduler`` or in the
    jobs of a ``slurm`` file, as for an extraction.
    """

    head: str
    dataset: str
    cache: str | Path  # or the URL of an object store
    encoders: Mapping[str, str | None]
    out: AnyPath | None = None
    runs: AnyPath = Path("runs")
    layer: str | None = None
    protocol: str | None = None
    classes: str | None = None
    seeds: Seeds = (0,)
    device: str = "auto"
    epochs: Count = 60
    patience: Count = 10
    batch_size: Count = 32
    accumulate: Count = 1
    optimizer: Annotated[str, one_of("optimizer", OPTIMIZERS)] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    schedule: Annotated[str, one_of("schedule", SCHEDULES)] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    clip: NotNegative = 0.0
    class_weights: Annotated[str, one_of("class_weights", CLASS_WEIGHTS)] = "none"
    amp: Annotated[str, one_of("amp", AMP)] = "off"
    monitor: Annotated[str, one_of("monitor", (*METRICS, "loss"))] = "weighted_f1"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    features: Annotated[str, one_of("features", FEATURES)] = "auto"
    save_every: NotNegative = 60.0
    workers: int | None = None
    scheduler: str | None = None
    slurm: AnyPath | None = None
    wait_minutes: float | None = None

    def __post_init__(self) -> None:
        """Validate the settings that depend on each other; the types validate the rest.

        Raises:
            UsageError: a value is invalid.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            seeds = ",".join(map(str, self.seeds))
            raise UsageError(f"seeds '{seeds}': give one or more different numbers, such as 0,1,2")
        if not self.encoders:
            raise UsageError(f"no modality is given: give {names()} in --modalities")
        _ = self.backend

    @cached_property
    def backend(self) -> Backend:
        """Where the trainings are done; in this process where nothing is said."""
        elsewhere = self.scheduler is not None or self.slurm is not None
        workers = self.workers if self.workers is not None or elsewhere else 0
        return Backend(_WORKER_SIZING, workers, self.scheduler, self.slurm, self.wait_minutes)

    def as_config(self) -> dict[str, Any]:
        """Return what the numbers depend on, as values that TOML can hold."""
        asked = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in _SILENT and getattr(self, one.name) is not None
        }
        cache = str(self.cache)
        asked["cache"] = cache if "://" in cache else str(Path(cache).expanduser().absolute())
        asked["seeds"] = list(self.seeds)
        options = dict(self.head_options).items()
        asked["head_options"] = {k: list(v) if isinstance(v, tuple) else v for k, v in options}
        return asked

    def with_overrides(self, assignments: Iterable[str]) -> "TrainSettings":
        """Return the settings changed by ``key=value`` texts, each checked against its type.

        Raises:
            UsageError: a text is not an assignment, a key is unknown, or a value does not fit.
        """
        changes: dict[str, Any] = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set '{assignment}': write it as key=value")
            changes[key] = _parsed(text)
        return self.changed(changes)

    def changed(self, values: Mapping[str, Any]) -> "TrainSettings":
        """Return the settings with other values, by the names that ``--set`` knows.

        Raises:
            UsageError: a name is unknown, or a value does not fit.
        """
        changes: dict[str, Any] = {}
        options = dict(self.head_options)
        for key, value in values.items():
            if key.startswith("head."):
                options[key.removeprefix("head.")] = value
            elif key not in TUNABLE:
                raise unknown("setting", key, [*TUNABLE, "head.OPTION"])
            else:
                changes[key] = value
        return replace(self, **changes, head_options=options)


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
