"""Stage two: from features in the cache to trained heads and their scores."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ...cache.storage.leases import lease
from ...heads import HEADS
from ..compute import Backend, WorkerRequirements, run_jobs
from ..compute.device import chosen_device, cores
from ..errors import PipelineError, UsageError, unknown
from ..evaluation.metrics import aggregate, by_class, pooled_by_class, scores
from ..progress import print_note, progress
from ..protocols.folds import Fold, Splits
from ..protocols.leakage import Leakage, check_leakage
from ..protocols.protocols import split_corpus
from .checkpoint import from_safetensors
from .examples import Examples
from .jobs import TrainingJob, TrainingReport, build, examples_of, run_training
from .run import Run
from .run_folder import FORMAT, RunFolder, folds_json, named_by_content
from .settings import TrainSettings
from .trainer import predictions

_PAUSE = 1.0  # seconds, while other processes are at work on what is left
_PATIENCE = 3600.0  # while another process writes the scores


@dataclass(frozen=True)
class Planned:
    """A run that can begin: its folder is there, and its folds are divided."""

    settings: TrainSettings
    protocol: str
    examples: Examples
    splits: Splits
    excluded: Mapping[str, str]
    leakage: Leakage
    run: RunFolder

    def remarks(self) -> list[str]:
        """Return what is to be known of the folds before anything is trained."""
        found = self.leakage.lines() or ["the parts share nothing that was looked at"]
        lines = "\n".join(f"  {line}" for line in found)
        return [
            *(f"mser: {note}" for note in self.splits.notes),
            f"mser: leakage check of {self.protocol}, which allows what is shared here:\n{lines}",
        ]

    def jobs(self, threads: int | None = None, processes: int = 1) -> list[TrainingJob]:
        """Return the trainings, fold by fold; see :class:`TrainingJob`."""
        digest, settings = self.examples.digest, self.settings
        return [
            TrainingJob(settings, digest, self.run.path, fold.name, seed, threads, processes)
            for fold in self.splits.folds
            for seed in settings.seeds
        ]


def train_head(settings: TrainSettings) -> Run:
    """Train a head by a protocol on features that lie in the cache, and write the run folder.

    A run that was interrupted goes on; one that is finished is only read.

    Raises:
        UsageError: the head, an option, the protocol or the device is not there.
        CacheError: the cache does not hold the features.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    return train_heads([settings])[0]


def train_heads(
    several: Sequence[TrainSettings], say: Callable[[Run], None] = lambda run: None
) -> list[Run]:
    """Train several heads, all their folds and seeds side by side where the first one's place is.

    All are planned before the first is trained, so that what cannot be is told at once, and what
    the parts of their folds have in common. ``say`` is told of each run that is finished.

    Raises:
        UsageError, CacheError, PipelineError: see :func:`train_head`.
    """
    backend, device = several[0].backend, chosen_device(several[0].device)
    plans = _plans(several)
    unfinished = [one for one in plans if not one.run.finished]
    for line in dict.fromkeys(line for one in unfinished for line in one.remarks()):
        print_note(line)
    threads, processes = _threads(backend, device), _processes(backend, device)
    jobs = [job for one in unfinished for job in one.jobs(threads, processes) if not job.done]
    most = sum(job.settings.epochs for job in jobs)
    what = f"training {', '.join(dict.fromkeys(one.settings.head for one in plans))}"
    runs: dict[int, Run] = {}

    def finish() -> None:
        for at, one in enumerate(plans):
            if at not in runs and (finished := _finished(one)):
                runs[at] = finished
                say(finished)

    finish()
    with progress(most, what, "epoch") as bar:
        for _ in _reports(jobs, backend, device, lambda epoch: bar.update()):
            finish()
    return [runs[at] for at in range(len(plans))]


def _plans(several: Sequence[TrainSettings]) -> list[Planned]:
    """Plan all, and read a corpus once for those that use the same features of it."""
    found: dict[Any, Examples] = {}
    plans = []
    for settings in several:
        encoders = tuple(settings.encoders.items())
        key = (settings.cache, settings.dataset, encoders, settings.classes)
        plans.append(plan(settings, found.get(key)))
        found[key] = plans[-1].examples
    return plans


def plan(settings: TrainSettings, examples: Examples | None = None) -> Planned:
    """Look at everything that a run requirements, and make its folder.

    ``examples`` are its examples, where they have been found before.

    Raises:
        UsageError, CacheError, PipelineError: see :func:`train_head`.
    """
    if settings.head not in HEADS:
        raise unknown("head", settings.head, HEADS)
    device = chosen_device(settings.device)
    if settings.amp == "float16" and device.type == "cpu":
        raise UsageError("amp=float16 is for a GPU: say amp=bfloat16 on a CPU")
    examples = examples or examples_of(settings)
    protocol = settings.protocol or examples.corpus.protocol
    splits = split_corpus(examples.utterances, protocol, examples.corpus.utterances)
    leakage = check_leakage(splits.folds, splits.disjoint_columns, examples.audio_hashes)
    build(settings, examples)  # wrong options are refused before a folder is made
    config = settings.as_config() | {
        "format": FORMAT,
        "mser": version("mser"),
        "protocol": protocol,
        "device": device.type,
        "digest": examples.digest,
        "encoders": {
            modality: {"name": entry.spec.encoder, "key": entry.spec.key}
            for modality, entry in examples.entries.items()
        },
    }
    run = RunFolder(settings.out or named_by_content(settings.runs, config))
    excluded = {**examples.excluded, **splits.left_out}
    threads = _threads(settings.backend, device)
    folds = folds_json(splits.folds, excluded)
    stored = {modality: entry.spec.layers for modality, entry in examples.entries.items()}
    run.begin(config, folds, stored, device, threads)
    return Planned(settings, protocol, examples, splits, excluded, leakage, run)


def _processes(backend: Backend, device: torch.device) -> int:
    """Return how many trainings share the memory of this machine."""
    return 1 if backend.remote else max(1, backend.processes(device))


def _threads(backend: Backend, device: torch.device) -> int | None:
    """Return the threads of a training: the processes here share the cores, others have theirs."""
    if backend.in_process:
        return torch.get_num_threads()
    return None if backend.remote else max(1, cores() // backend.processes(device))


def _reports(
    jobs: Sequence[TrainingJob], backend: Backend, device: torch.device, tick: Callable[[int], None]
) -> Generator[TrainingReport]:
    """Do the trainings on a backend; call ``tick`` with the number of each epoch that is over."""

    def requirements() -> WorkerRequirements:
        return WorkerRequirements.of_this_process({job.run for job in jobs}, device.type == "cuda")

    def with_ticks(job: TrainingJob) -> TrainingReport:
        return run_training(job, tick)

    work = with_ticks if backend.in_process else run_training
    for job, report in run_jobs(work, jobs, backend, device, requirements, pause=_PAUSE):
        if report is None:
            raise PipelineError(
                f"workers died while they trained fold '{job.fold}' with seed {job.seed} "
                "(too little memory?): what was finished is kept; run the same command again with "
                "fewer workers"
            )
        if not backend.in_process:  # workers report whole trainings only
            for epoch in range(job.settings.epochs):
                tick(epoch)
        yield report


def _finished(one: Planned) -> Run | None:
    """Return the run if all its trainings are done, having written its scores."""
    run, jobs = one.run, one.jobs()
    if not run.finished:
        if not all(job.done for job in jobs):
            return None
        with lease(run.folder, "scores", _PATIENCE) as mine:
            if mine and not run.finished:
                _write_scores(one, jobs)
    run.clean()  # what a process that was killed after the scores has left
    return Run(run.path, run.read_json("metrics.json"), one.examples.corpus.notes)


def _write_scores(one: Planned, jobs: Sequence[TrainingJob]) -> None:
    of_name = {fold.name: fold for fold in one.splits.folds}
    predicted: list[tuple[Fold, int, Tensor]] = []
    facts = []
    for job in jobs:
        tensors, said = from_safetensors(one.run.trainings, job.result)
        predicted.append((of_name[job.fold], job.seed, tensors["probabilities"]))
        facts.append(said)
    classes = one.examples.corpus.classes
    metrics = _metrics(one, predicted, facts)
    one.run.finish([job.name for job in jobs], classes, predicted, metrics)


def _metrics(
    one: Planned, predicted: Sequence[tuple[Fold, int, Tensor]], facts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    classes = one.examples.corpus.classes
    parts, chance, folds = [], [], []
    for (fold, seed, probabilities), said in zip(predicted, facts, strict=True):
        part = predictions(fold, seed, probabilities, classes)
        trained = Counter(str(utterance.label) for utterance in fold.train)
        always = [trained.most_common(1)[0][0]] * len(part.labels)
        parts.append(part)
        chance.append(replace(part, predicted=always))
        folds.append(
            {
                "fold": fold.name,
                "seed": seed,
                **scores(part.labels, part.predicted),
                "utterances": {
                    "train": len(fold.train),
                    "validation": len(fold.validation),
                    "test": len(fold.test),
                },
                **said,
                **by_class(part.labels, part.predicted, classes),
            }
        )
    tested = {utterance.id for fold in one.splits.folds for utterance in fold.test}
    return {
        "head": one.settings.head,
        "dataset": one.settings.dataset,
        "protocol": one.protocol,
        "classes": list(classes),
        "notes": list(one.examples.corpus.notes),
        "selected_by": f"best {one.settings.monitor} on the validation part",
        "test_utterances": len(tested),
        "excluded": dict(Counter(one.excluded.values())),
        "leakage": {**one.leakage.as_json(), "lines": one.leakage.lines()},
        "aggregate": aggregate(parts),
        "chance": aggregate(chance),
        "pooled": pooled_by_class(parts, classes),
        "folds": folds,
    }
