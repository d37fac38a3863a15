"""One training as a job: one fold and one seed of a run, in this process or in a worker."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from ...cache import CacheError
from ...cache.storage.leases import lease
from ...heads import HEADS, Head, HeadError, build_head
from ..compute.device import chosen_device
from ..errors import PipelineError, UsageError
from ..protocols.folds import Fold
from .checkpoint import TrainingProgress, TrainingState, from_safetensors, to_safetensors
from .determinism import reproducible
from .examples import TrainingExamples, find_examples
from .features import FeatureLoader
from .joined import find_joined
from .layers import layer_positions
from .objectives import objective_of
from .run_folder import RunFolder, training_name
from .settings import TrainSettings, load_plugins
from .tracking import tracking
from .trainer import Trainer

PREDICTED = "probabilities"
"""The predictions in the file of a result; of attributes, they are numbers on their own scale."""

OnEpoch = Callable[[int], None]
"""Called with the number of each epoch when it is finished."""


@dataclass(frozen=True)
class TrainingJob:
    """A fold and a seed of a run."""

    settings: TrainSettings
    """The settings of the run."""
    digest: str
    """The digest of the features; see :attr:`TrainingExamples.digest`."""
    run: Path
    """The run folder."""
    fold: str
    """Name of the fold."""
    seed: int
    """The seed."""
    threads: int | None = None
    """Threads on a CPU; default ``None``, which does not change those of the process.

    The number changes the order of sums, and so the last bits of the result."""
    processes: int = 1
    """How many processes share the memory of the machine; default 1."""
    plugins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What :meth:`TrainSettings.plugins` gave in the process that planned the run."""

    @property
    def name(self) -> str:
        """The name of the files of this training, without suffix."""
        return training_name(self.fold, self.seed)

    @property
    def done(self) -> bool:
        """Whether the result exists, or is already a part of the scores."""
        result_exists = (self.run / "trainings" / self.result).exists()
        # In this order: the scores are written before the result is deleted.
        return result_exists or RunFolder(self.run).finished

    @property
    def result(self) -> str:
        """The name of the file that holds the predictions of the test part."""
        return f"{self.name}.result.safetensors"


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of a job; ``busy`` if another process has the job."""

    job: TrainingJob
    busy: bool = False


def run_training(job: TrainingJob, on_epoch: OnEpoch = lambda epoch: None) -> TrainingReport:
    """Train a fold with a seed; continue from the saved state if there is one.

    ``on_epoch`` is called with the number of each finished epoch, also of those in a saved state.

    Raises:
        UsageError: the device or an option does not exist.
        CacheError: the cache does not hold the features.
        PipelineError: the features have changed, or the loss is not finite.
    """
    run = RunFolder(job.run)
    unique = hashlib.sha256(job.name.encode()).hexdigest()[:16]  # a lease takes only simple names
    # Random numbers and the number of threads belong to the process, and a worker may run several
    # jobs at once.
    with _one_at_a_time:
        if job.done:
            return TrainingReport(job)
        try:
            with lease(run.trainings, unique) as acquired:
                if not acquired:
                    return TrainingReport(job, busy=True)
                if not job.done:
                    load_plugins(job.plugins)
                    with reproducible(job.threads):
                        _train(job, run, on_epoch)
        except CacheError:
            if not run.finished:  # else another process has finished it and deleted the folder
                raise
    return TrainingReport(job)


def examples_of(settings: TrainSettings, digest: str | None = None) -> TrainingExamples:
    """Return the examples of a run; the last ones stay in memory and are found by ``digest``.

    Raises:
        CacheError, UsageError: see :func:`find_examples`.
        PipelineError: see there; or the features do not have ``digest``.
    """
    if digest not in _examples:
        examples = _found(settings)
        _examples.clear()
        _examples[examples.digest] = examples
        if digest not in (None, examples.digest):
            raise PipelineError(
                f"the features of {settings.dataset} in {settings.cache} changed while the run was "
                "going on, or differ on this machine: run the same command again"
            )
        return examples
    return _examples[digest]


def _found(settings: TrainSettings) -> TrainingExamples:
    cache, encoders, context = settings.cache, settings.encoders, reads_context(settings)
    if settings.test_on is None:
        return find_examples(
            cache, settings.dataset, encoders, settings.classes, context, settings.target
        )
    train_on, test_on = settings.train_on, settings.test_on
    return find_joined(cache, train_on, test_on, encoders, settings.mapped, context)


def reads_context(settings: TrainSettings) -> bool:
    """Whether the head reads turns without a label as context of their dialogue."""
    head = HEADS.get(settings.head)
    wanted = settings.head_options.get("unlabelled_turns", True)
    return head is not None and head.reads_dialogues and bool(wanted)


def build(settings: TrainSettings, examples: TrainingExamples) -> Head:
    """Build the head that the settings ask for.

    Raises:
        UsageError: the head does not have an option, or the cache does not hold a layer.
    """
    for name in settings.head_options:
        if name in signature(build_head).parameters:
            raise UsageError(
                f"head.{name} is not an option of a head: it follows from the cache and --layer"
            )
    stored = {modality: entry.spec.layers for modality, entry in examples.entries.items()}
    default_layers = HEADS[settings.head].default_layers if settings.head in HEADS else {}
    try:
        head = build_head(
            settings.head,
            {modality: entry.dim for modality, entry in examples.entries.items()},
            examples.targets.n_outputs,
            {modality: len(layers) for modality, layers in stored.items()},
            layer_positions(settings.layer, stored, default_layers),
            objective_of(examples.targets, settings.loss),
            **settings.head_options,
        )
    except HeadError as error:
        raise UsageError(str(error)) from error
    if settings.standardise:
        head.standardise()
    settings.optimizer_of(head)
    return head


def trainer_of(settings: TrainSettings, examples: TrainingExamples, processes: int = 1) -> Trainer:
    """Return the trainer of a run on this machine's device."""
    device = chosen_device(settings.device)

    def features(head: Head) -> FeatureLoader:
        key = tuple((modality, head.layers[modality]) for modality in settings.encoders)
        pooled = tuple(head.widths.items()) if head.reads_pooled else None
        by_speaker = settings.speaker_normalisation
        return _features(examples, key, device, settings.features, processes, pooled, by_speaker)

    return Trainer(lambda: build(settings, examples), features, settings, device)


def _train(job: TrainingJob, run: RunFolder, on_epoch: OnEpoch) -> None:
    examples = examples_of(job.settings, job.digest)
    trainer = trainer_of(job.settings, examples, job.processes)
    folds = run.folds(examples)
    fold = next(fold for fold in folds if fold.name == job.fold)
    # With context, the turns that a part reads depend on the test part too.
    if not examples.context and (twin := _twin(job, fold, folds)):
        _test(job, twin, run, trainer, fold, on_epoch)
        return
    state_file, log = f"{job.name}.state.safetensors", run.trainings.at / f"{job.name}.jsonl"
    saved = time.monotonic()

    def restore(state: TrainingState) -> TrainingProgress:
        progress = state.restore(run.trainings, state_file)
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        # Epochs after the saved state are trained and logged again.
        run.trainings.write(log.name, "".join(lines[: progress.epoch]).encode())
        for epoch in range(progress.epoch):
            on_epoch(epoch + 1)
        return progress

    def after_epoch(
        state: TrainingState | None, progress: TrainingProgress, values: dict[str, Any]
    ) -> None:
        nonlocal saved
        line = {"fold": job.fold, "seed": job.seed, **values}
        for file in (log, job.run / "log.jsonl"):  # the second is for people, until it is complete
            with file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(line) + "\n")
        track(line)
        if state is not None and time.monotonic() - saved >= job.settings.save_every:
            state.save(run.trainings, state_file, progress)
            saved = time.monotonic()
        on_epoch(progress.epoch)

    config = job.settings.as_config()
    with tracking(job.settings.track, run.path, job.name, config) as track:
        trained = trainer.train(fold, job.seed, restore, after_epoch)
    run.checkpoints.write(f"{job.name}.safetensors", to_safetensors(trained.weights, {}))
    facts = {
        "best_epoch": trained.best_epoch,
        "steps": trained.steps,
        "validation": trained.validation,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    result = to_safetensors({PREDICTED: trained.predicted}, facts)
    run.trainings.write(job.result, result)
    run.trainings.remove(state_file)


def _twin(job: TrainingJob, fold: Fold, folds: Sequence[Fold]) -> TrainingJob | None:
    """Return a finished job of the same training, of a fold with another test part."""
    for other in folds:
        twin = replace(job, fold=other.name)
        same = (other.train, other.validation) == (fold.train, fold.validation)
        if same and other is not fold and (job.run / "trainings" / twin.result).exists():
            return twin
    return None


def _test(
    job: TrainingJob,
    twin: TrainingJob,
    run: RunFolder,
    trainer: Trainer,
    fold: Fold,
    on_epoch: OnEpoch,
) -> None:
    """Do a job with the head of another: the same training would give the same weights."""
    weights, _ = from_safetensors(run.checkpoints, f"{twin.name}.safetensors")
    _, facts = from_safetensors(run.trainings, twin.result)
    head = trainer.build()
    head.load_state_dict(weights)
    head.to(trainer.device)
    outputs = trainer.predict(head, trainer.features(head), fold.test)
    predicted = head.objective.predictions(outputs)
    run.checkpoints.write(f"{job.name}.safetensors", to_safetensors(weights, {}))
    lines = run.trainings.read(f"{twin.name}.jsonl").decode().splitlines()
    log = [json.dumps(json.loads(line) | {"fold": job.fold}) for line in lines]
    run.trainings.write(f"{job.name}.jsonl", "".join(f"{line}\n" for line in log).encode())
    run.trainings.write(job.result, to_safetensors({PREDICTED: predicted}, facts))
    for number in range(len(lines)):
        on_epoch(number + 1)


# One process does many jobs of the same run, or of runs on the same features.
_examples: dict[str | None, TrainingExamples] = {}
_loaders: dict[Any, FeatureLoader] = {}
_one_at_a_time = Lock()


def _features(
    examples: TrainingExamples,
    layers: Any,
    device: torch.device,
    keep: str,
    processes: int,
    pooled: Any,
    by_speaker: tuple[str, ...],
) -> FeatureLoader:
    key = (id(examples), layers, device, keep, processes, pooled, by_speaker)
    if key not in _loaders:
        _loaders.clear()  # first: the old and the new features may not both fit
        widths = None if pooled is None else dict(pooled)
        loader = FeatureLoader(examples, dict(layers), device, keep, processes, widths, by_speaker)
        _loaders[key] = loader
    return _loaders[key]
