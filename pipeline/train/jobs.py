"""One training as a job: one fold and one seed of a run, wherever it is done."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from ...cache import CacheError
from ...cache.storage.leases import lease
from ...heads import Head, HeadError, build_head
from ..compute.device import chosen_device
from ..errors import PipelineError, UsageError
from .checkpoint import Progress, State, to_safetensors
from .determinism import reproducible
from .examples import Examples, find_examples
from .features import FeatureLoader
from .layers import layer_positions
from .run_folder import RunFolder, training_name
from .settings import TrainSettings
from .trainer import Trainer

Tick = Callable[[int], None]


@dataclass(frozen=True)
class TrainingJob:
    """A fold and a seed of a run on the features of which ``digest`` is that.

    ``threads`` are those that it computes with on a CPU, ``None`` for what the process has; so
    many ``processes`` share the machine's memory.
    """

    settings: TrainSettings
    digest: str
    run: Path
    fold: str
    seed: int
    threads: int | None = None
    processes: int = 1

    @property
    def name(self) -> str:
        """The name of its files."""
        return training_name(self.fold, self.seed)

    @property
    def done(self) -> bool:
        """Whether its result is there, or has become a part of the scores."""
        there = (self.run / "trainings" / self.result).exists()
        return there or RunFolder(self.run).finished  # in this order: the scores come, then it goes

    @property
    def result(self) -> str:
        """The name of the file that holds what it says on the test part."""
        return f"{self.name}.result.safetensors"


@dataclass(frozen=True)
class TrainingReport:
    """What became of a job; ``busy`` says that another process is at it."""

    job: TrainingJob
    busy: bool = False


def run_training(job: TrainingJob, tick: Tick = lambda epoch: None) -> TrainingReport:
    """Do a job, or go on with it where a process that was killed has left it.

    ``tick`` is told the number of each epoch that is over.

    Raises:
        PipelineError: what was asked cannot be done, or the loss is not finite.
    """
    run = RunFolder(job.run)
    unique = hashlib.sha256(job.name.encode()).hexdigest()[:16]  # a lease has a plain name
    # Random numbers and threads are those of the process, and a worker may have several at once.
    with _one_at_a_time:
        if job.done:
            return TrainingReport(job)
        try:
            with lease(run.trainings, unique) as mine:
                if not mine:
                    return TrainingReport(job, busy=True)
                if not job.done:
                    with reproducible(job.threads):
                        _train(job, run, tick)
        except CacheError:
            if not run.finished:  # by another process, which has deleted the folder meanwhile
                raise
    return TrainingReport(job)


def examples_of(settings: TrainSettings, digest: str | None = None) -> Examples:
    """Return the examples of a run; those of the last ``digest`` are kept, and not read again.

    Raises:
        CacheError, PipelineError: see :func:`find_examples`; or they are not those of ``digest``.
    """
    if digest not in _examples:
        found = find_examples(settings.cache, settings.dataset, settings.encoders, settings.classes)
        _examples.clear()
        _examples[found.digest] = found
        if digest not in (None, found.digest):
            raise PipelineError(
                f"the features of {settings.dataset} in {settings.cache} changed while the run was "
                "going on, or are others there: run the same command again"
            )
        return found
    return _examples[digest]


def build(settings: TrainSettings, examples: Examples) -> Head:
    """Build the head that the settings ask for.

    Raises:
        UsageError: an option or a layer that the head does not have.
    """
    for name in settings.head_options:
        if name in signature(build_head).parameters:
            raise UsageError(
                f"head.{name} is not an option of a head: the cache and --layer give it"
            )
    stored = {modality: entry.spec.layers for modality, entry in examples.entries.items()}
    try:
        return build_head(
            settings.head,
            {modality: entry.dim for modality, entry in examples.entries.items()},
            len(examples.corpus.classes),
            {modality: len(layers) for modality, layers in stored.items()},
            layer_positions(settings.layer, stored),
            **settings.head_options,
        )
    except HeadError as error:
        raise UsageError(str(error)) from error


def trainer_of(settings: TrainSettings, examples: Examples, processes: int = 1) -> Trainer:
    """Return the trainer of a run on this machine's device."""
    device = chosen_device(settings.device)

    def features(layers: Any) -> FeatureLoader:
        key = tuple((modality, tuple(layers[modality])) for modality in settings.encoders)
        return _features(examples, key, device, settings.features, processes)

    return Trainer(lambda: build(settings, examples), features, settings, device)


def _train(job: TrainingJob, run: RunFolder, tick: Tick) -> None:
    examples = examples_of(job.settings, job.digest)
    trainer = trainer_of(job.settings, examples, job.processes)
    fold = next(one for one in run.folds(examples) if one.name == job.fold)
    state_file, log = f"{job.name}.state.safetensors", run.trainings.at / f"{job.name}.jsonl"
    saved = time.monotonic()

    def restore(state: State) -> Progress:
        progress = state.restore(run.trainings, state_file)
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        # What was logged after the state was saved, will be again.
        run.trainings.write(log.name, "".join(lines[: progress.epoch]).encode())
        for epoch in range(progress.epoch):
            tick(epoch + 1)
        return progress

    def after_epoch(state: State, progress: Progress, values: dict[str, Any]) -> None:
        nonlocal saved
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"fold": job.fold, "seed": job.seed, **values}) + "\n")
        if time.monotonic() - saved >= job.settings.save_every:
            state.save(run.trainings, state_file, progress)
            saved = time.monotonic()
        tick(progress.epoch)

    trained = trainer.train(fold, job.seed, restore, after_epoch)
    run.checkpoints.write(f"{job.name}.safetensors", to_safetensors(trained.weights, {}))
    facts = {"best_epoch": trained.best_epoch, "validation": trained.validation}
    result = to_safetensors({"probabilities": trained.probabilities}, facts)
    run.trainings.write(job.result, result)
    run.trainings.remove(state_file)


# A process does many jobs of the same run, or of runs on the same features.
_examples: dict[str | None, Examples] = {}
_kept: dict[Any, FeatureLoader] = {}
_one_at_a_time = Lock()


def _features(
    examples: Examples, layers: Any, device: torch.device, keep: str, processes: int
) -> FeatureLoader:
    key = (id(examples), layers, device, keep, processes)
    if key not in _kept:
        _kept.clear()  # before the new ones are read: both may not fit
        _kept[key] = FeatureLoader(examples, dict(layers), device, keep, processes)
    return _kept[key]
