"""The settings of a training run."""

from collections.abc import Iterable, Mapping
from dataclasses import field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field

from ...heads import Head
from ...heads.linear import LinearProbe
from ..compute import Backend, WorkerSizing
from ..compute.tls import tls_files
from ..corpora.class_map import ClassMap, class_map
from ..errors import PipelineError, UsageError, unknown
from ..evaluation.registry import METRIC_PLUGINS
from ..evaluation.scorers import metric_named, scorer_of
from ..modalities import USUAL, modality_names
from ..option_texts import assigned, default_cache
from ..plugins import Plugins
from ..protocols.across import NAME as CROSS_CORPUS
from ..targets import EMOTION, Targets, checked_names, losses_of, monitor_of
from ..validation import AnyPath, CachePlace, Count, NotNegative, Positive, Seeds, one_of, plugin_of
from ..validation import settings as settings_class
from .head_plugins import HEAD_PLUGINS
from .tracking import TRACKERS

AMP = {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
LBFGS = "lbfgs"
_OPTIMIZERS = ("auto", *OPTIMIZERS, LBFGS)
SCHEDULES = ("constant", "linear", "cosine")
CLASS_WEIGHTS = ("none", "balanced")
LOGIT_ADJUSTMENTS = ("none", "validation")
FEATURES = ("auto", "memory", "stream")

# What --set may change, in addition to head.OPTION.
TUNABLE = (
    *("epochs", "patience", "batch_size", "accumulate", "standardise", "speaker_normalisation"),
    *("optimizer", "l2", "learning_rate", "weight_decay", "schedule", "warmup", "clip", "ema"),
    *("class_weights", "logit_adjustment", "loss", "amp", "monitor", "features", "save_every"),
)
# What configurations of older runs do not have: it is left out at its default.
_ADDED = {"target": EMOTION, "logit_adjustment": "none", "speaker_normalisation": ()}
# These have no effect if a solver trains the head.
_OF_EPOCHS = (
    *("epochs", "patience", "accumulate", "learning_rate", "weight_decay", "schedule", "warmup"),
    *("clip", "ema"),
)
# No number of the result depends on these; ``folds`` only chooses which of them are computed.
_SILENT = (
    *("folds", "leakage_columns", "out", "runs", "features", "save_every", "track"),
    *("workers", "scheduler", "slurm", "wait_minutes", "tls_ca_file", "tls_cert", "tls_key"),
)


_PLUGINS: dict[str, Plugins[Any]] = {"head": HEAD_PLUGINS, "monitor": METRIC_PLUGINS}


def _one(*_: object) -> int:
    return 1


def _names(given: Any) -> Any:
    return tuple(n.strip() for n in given.split(",")) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_names)]
"""A list of names, or a text in which commas separate them."""

TargetNames = Annotated[Names, AfterValidator(checked_names)]
"""Names of targets."""

MONITOR = "weighted_f1"
_metric = plugin_of(METRIC_PLUGINS, also=("loss",))


def _monitor(name: str) -> str:
    """Return the name of a metric of any target, or of a plug-in's."""
    admit: Any = _metric.func
    return name if metric_named(name) else str(admit(name))


# One training at a time in a process; the user chooses the number of processes.
_WORKER_SIZING = WorkerSizing(workers=_one, threads=_one, imports=("mser.pipeline.train.jobs",))


@settings_class
class TrainSettings:
    """What to train and how.

    No number of the result depends on ``out``, ``runs``, ``features``, ``save_every`` and
    ``track``, or on where the work is done (``workers``, ``scheduler``, ``slurm``,
    ``wait_minutes`` and ``tls_…``), if each training has the same number of threads. ``folds``
    chooses which folds are trained; the numbers of a fold do not depend on it.
    """

    head: Annotated[str, plugin_of(HEAD_PLUGINS)]
    """Name of the head: of mser, of an installed plug-in, or ``file.py:Class``."""
    dataset: str
    """Name of the dataset in the cache; with ``test_on`` the training corpora, joined by ``+``."""
    cache: CachePlace = field(default_factory=default_cache)
    """Folder of the cache, its URL in an object store, or a ``FeatureCache``; default
    ``$MSER_CACHE``, else ``~/.cache/mser``."""
    encoders: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(USUAL))
    """Modality → its encoder: a name, a folder or an entry's key; ``None`` if the cache holds the
    features of only one encoder. These are the modalities of the training; default
    speech and text."""
    out: AnyPath | None = None
    """The run folder; by default a folder below ``runs``, named by a hash of the settings."""
    runs: AnyPath = Path("runs")
    """The folder in which the run folder is made if ``out`` is not given; default ``runs``."""
    layer: str | None = None
    """``mix``, ``concat``, ``last``, the encoder's own layer numbers such as ``6`` or ``0,6,12``,
    or one of these for each modality (``speech=0,1,2,text=last``); by default the head's own
    choice."""
    protocol: str | None = None
    """How the corpus is split; by default the corpus's own protocol."""
    validation: str | None = None
    """The column (``session``, ``speaker`` or ``dialogue``) by whose whole values the validation
    part is cut from the training part; by default the protocol's own rule."""
    leakage_columns: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Further columns of the corpus, such as ``scenario``, that the leakage check compares."""
    target: TargetNames = EMOTION
    """What is predicted: ``emotion`` (the default), ``valence`` and other attributes of the corpus,
    ``votes`` or ``labels``; or several, such as ``valence,arousal,dominance``."""
    classes: str | None = None
    """Name of the class set, such as ``4``; by default the corpus's own classes."""
    test_on: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Names of other datasets on which the head is tested, with a fold for each, instead of a
    protocol; by default the dataset is tested on itself."""
    class_map: dict[str, Any] | None = None
    """For ``test_on``: class → its labels, see :mod:`~mser.pipeline.corpora.class_map`; by default
    the four common emotions."""
    balance: bool | None = None
    """For ``test_on``: whether larger training corpora are cut to the size of the smallest."""
    seeds: Seeds = (0,)
    """One training for each fold and each seed; default 0 alone."""
    folds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the folds to train; default all folds of the protocol."""
    device: str = "auto"
    """``auto`` (the default), ``cpu`` or ``cuda``."""
    epochs: Count = 60
    """The largest number of epochs; default 60."""
    patience: Count = 10
    """Stop after this many epochs without a better ``monitor``; default 10."""
    batch_size: Count = 32
    """Utterances in a batch; default 32."""
    accumulate: Count = 1
    """Batches whose gradients are added up for one step; default 1."""
    optimizer: Annotated[str, one_of("optimizer", _OPTIMIZERS)] = "auto"
    """``adamw``, ``adam``, ``lbfgs`` (for a linear head; attributes have a closed solution), or
    ``auto`` (the default): ``lbfgs`` for a linear head, else ``adamw``."""
    l2: Positive | None = None
    """Strength of L2 with ``lbfgs``; by default chosen on the validation part."""
    standardise: bool = True
    """Whether the inputs of the head are standardised by the training part; default yes."""
    speaker_normalisation: Names = ()
    """The modalities whose features are normalised by speaker; default none."""
    learning_rate: Positive = 1e-3
    """The highest learning rate; default 0.001."""
    weight_decay: NotNegative = 0.01
    """Weight decay of the optimizer; default 0.01."""
    schedule: Annotated[str, one_of("schedule", SCHEDULES)] = "constant"
    """``constant`` (the default), or ``linear`` or ``cosine``, to 0 at the last of ``epochs``."""
    warmup: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of ``epochs`` in which the learning rate rises linearly from 0; default 0."""
    clip: NotNegative = 0.0
    """The largest norm of the gradients; default 0, which does not clip."""
    ema: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.99
    """Decay of the running average of the weights that is tested; default 0.99. 0 tests the weights
    themselves."""
    class_weights: Annotated[str, one_of("class_weights", CLASS_WEIGHTS)] = "none"
    """``none`` (the default), or ``balanced``: the loss weights a class by the inverse of its
    frequency in the training part."""
    logit_adjustment: Annotated[str, one_of("logit_adjustment", LOGIT_ADJUSTMENTS)] = "none"
    """``none`` (the default), or ``validation``: after the training, the outputs of the classes are
    moved by their frequency in the training part, as far as is best on the validation part."""
    loss: str | None = None
    """The loss of the target: ``ccc`` or ``mse`` of attributes, ``cross_entropy`` or ``kl`` of
    votes; by default the first of these."""
    amp: Annotated[str, one_of("amp", AMP)] = "off"
    """``off`` (the default), ``bfloat16``, or on a GPU ``float16``: mixed precision."""
    monitor: Annotated[str, AfterValidator(_monitor)] = MONITOR
    """The score on the validation part that chooses the epoch: a metric of the target, ``loss``, or
    ``file.py:function``; default ``weighted_f1`` of classes, ``ccc`` of attributes, ``macro_f1`` of
    several labels."""
    head_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the head, by name; default none."""
    features: Annotated[str, one_of("features", FEATURES)] = "auto"
    """``memory`` (of the GPU if there is one), ``stream`` (from the cache, with three batches in
    memory), or ``auto`` (the default): memory if the features fit."""
    save_every: NotNegative = 60.0
    """Seconds between two saves of the training state; default 60."""
    track: Annotated[
        tuple[Annotated[str, one_of("tracker", TRACKERS)], ...], Field(strict=False)
    ] = ()
    """Where each line of the log goes as well: ``tensorboard``, ``trackio`` or ``wandb``; default
    nowhere else."""
    workers: int | None = None
    """Processes that train folds and seeds in parallel; default 0, which is this process."""
    scheduler: str | None = None
    """Address of a running Dask scheduler; default none."""
    tls_ca_file: AnyPath | None = None
    """For ``scheduler``, if it is at ``tls://…``: the certificate of the authority, in PEM."""
    tls_cert: AnyPath | None = None
    """The certificate of this process; default: that of Dask's configuration."""
    tls_key: AnyPath | None = None
    """The key of ``tls_cert``; default: it is in the same file."""
    slurm: AnyPath | None = None
    """A TOML file that describes SLURM jobs; default none."""
    wait_minutes: float | None = None
    """Minutes to wait for a first worker; default 1 at a scheduler, 10 under SLURM."""

    def __post_init__(self) -> None:
        """Validate the settings that depend on each other; the types validate the rest.

        Raises:
            UsageError: a value is invalid.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            seeds = ",".join(map(str, self.seeds))
            raise UsageError(f"seeds '{seeds}': give one or more different numbers, such as 0,1,2")
        if not self.encoders:
            raise UsageError(f"no modality is given: give {modality_names()} in --modalities")
        for modality in self.speaker_normalisation:
            if modality not in self.encoders:
                raise unknown("modality of speaker_normalisation", modality, self.encoders)
        losses_of(self.target, self.loss)
        if self.class_weights == "balanced" and self.target[0] not in ("emotion", "votes"):
            raise UsageError(
                f"class_weights=balanced needs the target emotion or votes, not "
                f"{','.join(self.target)}: leave it out"
            )
        if self.logit_adjustment == "validation" and self.target[0] != "emotion":
            raise UsageError(
                f"logit_adjustment=validation needs the target emotion, not "
                f"{','.join(self.target)}: leave it out"
            )
        self._check_monitor()
        self._check_across()
        _ = self.backend

    def _check_monitor(self) -> None:
        """Take the default metric of the target in place of that of classes."""
        metrics = (*scorer_of(Targets(self.target, ())).metrics, "loss")
        if self.monitor == MONITOR and MONITOR not in metrics:
            object.__setattr__(self, "monitor", monitor_of(self.target))
        if self.monitor not in metrics:
            raise unknown(f"metric of {','.join(self.target)}", self.monitor, metrics)

    def _check_across(self) -> None:
        for option in ("class_map", "balance"):
            if self.test_on is None and getattr(self, option) is not None:
                name = option.replace("_", "-")
                raise UsageError(f"--{name} is for several corpora: give --train-on and --test-on")
        if self.test_on is not None and self.target != EMOTION:
            raise UsageError(
                f"--target {','.join(self.target)} is for one corpus: leave it out with --train-on "
                "and --test-on"
            )
        for option in ("protocol", "classes"):
            if self.test_on is not None and getattr(self, option) not in (None, CROSS_CORPUS):
                raise UsageError(
                    f"--{option} is for one corpus: leave it out with --train-on and --test-on"
                )
        if self.test_on is not None:
            if not self.test_on:
                raise UsageError("no corpus is given to test on: give it in --test-on")
            _ = self.mapped

    @property
    def train_on(self) -> tuple[str, ...]:
        """The names of the training corpora; with ``test_on`` perhaps several."""
        return tuple(self.dataset.split("+")) if self.test_on is not None else (self.dataset,)

    @cached_property
    def mapped(self) -> ClassMap:
        """The map of labels to classes that is used with ``test_on``."""
        return class_map(self.class_map)

    @cached_property
    def backend(self) -> Backend:
        """Where the trainings are done; by default in this process."""
        elsewhere = self.scheduler is not None or self.slurm is not None
        workers = self.workers if self.workers is not None or elsewhere else 0
        tls = tls_files(self.tls_ca_file, self.tls_cert, self.tls_key)
        return Backend(_WORKER_SIZING, workers, self.scheduler, self.slurm, self.wait_minutes, tls)

    def plugins(self) -> dict[str, dict[str, str]]:
        """Return the settings whose values are of plug-ins: name → the origin of the code."""
        origins = {name: plugins.origin(getattr(self, name)) for name, plugins in _PLUGINS.items()}
        return {name: origin.as_json() for name, origin in origins.items() if origin is not None}

    def optimizer_of(self, head: Head) -> str:
        """Return the optimizer for a head: ``adamw``, ``adam`` or ``lbfgs``.

        Raises:
            UsageError: ``lbfgs`` cannot train the head, or ``l2`` or ``loss`` is not for its
                optimizer.
        """
        linear = isinstance(head, LinearProbe) and head.is_linear
        chosen = self.optimizer
        if chosen == "auto":
            chosen = LBFGS if linear else "adamw"
        if chosen == LBFGS and not linear:
            raise UsageError(
                "optimizer=lbfgs needs a linear head: give --head linear without a mix of layers, "
                "attention pooling or dropout, or optimizer=adamw"
            )
        if chosen == LBFGS and self.loss == "ccc":
            raise UsageError(
                "a linear head is solved by the squared error: leave out loss=ccc, or give "
                "optimizer=adamw"
            )
        if self.l2 is not None and chosen != LBFGS:
            raise UsageError("l2 is the strength for optimizer=lbfgs: give weight_decay instead")
        return chosen

    def without_effect(self, head: Head) -> list[str]:
        """Return the settings that are not at their default, and that do not change the head."""
        if self.optimizer_of(head) != LBFGS:
            return []
        defaults = {setting.name: setting.default for setting in fields(self)}
        return [name for name in _OF_EPOCHS if getattr(self, name) != defaults[name]]

    def as_config(self) -> dict[str, Any]:
        """Return the settings that the result depends on, as values that TOML can hold."""
        config = {
            setting.name: getattr(self, setting.name)
            for setting in fields(self)
            if setting.name not in _SILENT and getattr(self, setting.name) is not None
        }
        config = {key: value for key, value in config.items() if value != _ADDED.get(key)}
        cache = str(self.cache)
        config["cache"] = cache if "://" in cache else str(Path(cache).expanduser().absolute())
        config["seeds"] = list(self.seeds)
        names = ("target", "speaker_normalisation")
        config |= {name: list(config[name]) for name in names if name in config}
        if self.test_on is not None:
            config |= {"test_on": list(self.test_on), "class_map": self.mapped.as_toml()}
        options = dict(self.head_options).items()
        config["head_options"] = {k: list(v) if isinstance(v, tuple) else v for k, v in options}
        plugins = self.plugins()
        return {**config, "plugins": plugins} if plugins else config

    def with_overrides(self, assignments: Iterable[str]) -> "TrainSettings":
        """Return the settings changed by ``key=value`` texts, each checked against its type.

        Raises:
            UsageError: a text is not an assignment, a key is unknown, or a value does not fit.
        """
        return self.changed(assigned(assignments))

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


def load_plugins(recorded: Mapping[str, Mapping[str, str]]) -> None:
    """Load the plug-ins of :meth:`TrainSettings.plugins` in this process, such as a worker.

    Raises:
        UsageError: the code is not here, or it fails.
        PipelineError: it has changed.
    """
    for setting, origin in recorded.items():
        key = _PLUGINS[setting].admit(origin["spec"])
        loaded = _PLUGINS[setting].origin(key)
        if loaded is None or loaded.as_json() != origin:
            raise PipelineError(
                f"the code of {origin['spec']} changed while the run was going on, or differs on "
                "this machine: run the same command again"
            )
