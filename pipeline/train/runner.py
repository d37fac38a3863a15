"""Stage two: from features in the cache to trained heads and their scores."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ...cache.storage.leases import lease
from ..compute import Backend, WorkerRequirements, run_jobs
from ..compute.device import chosen_device
from ..errors import PipelineError, UsageError, unknown
from ..evaluation.groups import groups_among
from ..evaluation.metrics import aggregate, of_fold, pooled_details, scores
from ..evaluation.scorers import scorer_of
from ..plugins import folders_of, short_name
from ..progress import StatusBar, print_note
from ..protocols.across import split_across
from ..protocols.folds import Fold, Splits
from ..protocols.leakage import Leakage, check_leakage
from ..protocols.protocols import split_corpus
from .checkpoint import from_safetensors
from .context import turns_read
from .examples import TrainingExamples
from .jobs import (
    PREDICTED,
    TrainingJob,
    TrainingReport,
    build,
    examples_of,
    reads_context,
    run_training,
)
from .objectives import predictions
from .run import Run, validation_text
from .run_folder import CONFIG_FORMAT, RunFolder, folds_json, named_by_content
from .settings import TrainSettings
from .shown_trainings import ShownTrainings
from .tracking import require_trackers

_PAUSE = 1.0  # seconds, while other processes do the jobs that are left
_PATIENCE = 3600.0  # seconds, while another process writes the scores


@dataclass(frozen=True)
class PlannedRun:
    """A run that can start: its folder exists, and its folds are known."""

    settings: TrainSettings
    protocol: str
    examples: TrainingExamples
    splits: Splits
    excluded: Mapping[str, str]
    leakage: Leakage
    run: RunFolder

    def leakage_notes(self) -> list[str]:
        """Return what to print about the folds before the training."""
        shared = self.leakage.lines() or ["the parts share nothing that was looked at"]
        lines = "\n".join(f"  {line}" for line in shared)
        return [
            *(f"mser: {note}" for note in self.splits.notes),
            f"mser: leakage check of {self.protocol}{validation_text(self.settings.validation)}, "
            f"which allows what is shared here:\n{lines}",
        ]

    @property
    def fold_names(self) -> tuple[str, ...]:
        """The folds to train: those of the settings, or all."""
        names = self.settings.folds or (fold.name for fold in self.splits.folds)
        return tuple(dict.fromkeys(names))

    @property
    def scored(self) -> bool:
        """Whether the scores of the folds to train are written."""
        return self.run.finished or self.run.scored_folds >= set(self.fold_names)

    def jobs(self, threads: int | None = None, processes: int = 1) -> list[TrainingJob]:
        """Return a job for each fold to train and each seed; see :class:`TrainingJob`."""
        return [job for name in self.fold_names for job in self.jobs_of(name, threads, processes)]

    def jobs_of(
        self, fold: str, threads: int | None = None, processes: int = 1
    ) -> list[TrainingJob]:
        """Return a job for each seed of a fold; see :class:`TrainingJob` for the arguments."""
        digest, settings = self.examples.digest, self.settings
        plugins = settings.plugins()
        return [
            TrainingJob(settings, digest, self.run.path, fold, seed, threads, processes, plugins)
            for seed in settings.seeds
        ]


def train_head(settings: TrainSettings) -> Run:
    """Train a head by a protocol on features in the cache, and write the run folder.

    An interrupted run continues; a finished one is only read.

    Raises:
        UsageError: the head, an option, the protocol or the device does not exist.
        CacheError: the cache does not hold the features.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    return train_heads([settings])[0]


def train_heads(
    several: Sequence[TrainSettings], on_finished: Callable[[Run], None] = lambda run: None
) -> list[Run]:
    """Train several heads, all their folds and seeds in parallel on the backend of the first.

    All runs are planned before the first is trained, so that an error in any of them, and what the
    parts of their folds share, is reported at once. ``on_finished`` is called with each finished
    run.

    Raises:
        UsageError, CacheError, PipelineError: see :func:`train_head`.
    """
    require_trackers([name for settings in several for name in settings.track])
    backend, device = several[0].backend, chosen_device(several[0].device)
    plans = _plans(several)
    unfinished = [planned for planned in plans if not planned.scored]
    shown = [run for run in plans if not run.scored or run.settings.leakage_columns]
    notes = (note for planned in shown for note in planned.leakage_notes())
    for note in dict.fromkeys(notes):
        print_note(note)
    threads, processes = _threads(backend, device), _processes(backend, device)
    trainings = [job for run in unfinished for job in run.jobs(threads, processes)]
    jobs = [job for job in trainings if not job.done]
    runs: dict[int, Run] = {}

    def finish() -> None:
        for number, planned in enumerate(plans):
            if number not in runs and (run := _finished(planned)):
                runs[number] = run
                on_finished(run)

    finish()
    with StatusBar() as bar:
        progress = ShownTrainings(trainings, bar)
        for report in _reports(jobs, backend, device, progress):
            progress.finished(report.job)
            finish()
    return [runs[number] for number in range(len(plans))]


def _plans(several: Sequence[TrainSettings]) -> list[PlannedRun]:
    """Plan all runs; runs on the same features share the examples."""
    examples: dict[Any, TrainingExamples] = {}
    plans = []
    for settings in several:
        encoders = tuple(settings.encoders.items())
        context = reads_context(settings)
        across = repr((settings.test_on, settings.class_map))
        target = (settings.classes, settings.target)
        key = (settings.cache, settings.dataset, encoders, *target, context, across)
        plans.append(plan_run(settings, examples.get(key)))
        examples[key] = plans[-1].examples
    return plans


def plan_run(settings: TrainSettings, examples: TrainingExamples | None = None) -> PlannedRun:
    """Check everything that a run needs, and make its folder.

    ``examples`` are the examples of the run, if they are already known.

    Raises:
        UsageError, CacheError, PipelineError: see :func:`train_head`.
    """
    device = chosen_device(settings.device)
    if settings.amp == "float16" and device.type == "cpu":
        raise UsageError("amp=float16 needs a GPU: give amp=bfloat16 on a CPU")
    examples = examples or examples_of(settings)
    protocol, splits, leakage = checked_splits(settings, examples)
    # What equals the default is no setting of its own, and does not change the name of the folder.
    settings = replace(settings, validation=splits.validation)
    head = build(settings, examples)  # so that wrong options are refused before a folder is made
    if settings.optimizer == "adam" and settings.weight_decay:
        print_note(
            f"mser: note: adam adds weight_decay={settings.weight_decay:g} to the gradient, where "
            "it is divided by the gradient's size; give optimizer=adamw for a decay of the weights"
        )
    if unused := settings.without_effect(head):
        print_note(
            f"mser: note: {', '.join(unused)} has no effect on {short_name(settings.head)}, which "
            "is solved and not trained by epochs: set l2, or optimizer=adamw"
        )
    if settings.standardise or head.reads_pooled:
        _ = examples.pooled  # in this process, once for all workers
    config = settings.as_config() | {
        "format": CONFIG_FORMAT,
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
    return PlannedRun(settings, protocol, examples, splits, excluded, leakage, run)


def checked_splits(
    settings: TrainSettings, examples: TrainingExamples
) -> tuple[str, Splits, Leakage]:
    """Return the protocol of a run, the corpus split by it, and what the parts share.

    Raises:
        UsageError: the protocol, a fold or a column does not exist.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    protocol = settings.protocol or examples.corpus.protocol
    splits = _split(settings, examples, protocol)
    names = [fold.name for fold in splits.folds]
    for name in settings.folds:
        if name not in names:
            raise unknown(f"fold of {protocol}", name, names)
    own = _own_columns(settings, examples)
    leakage = check_leakage(splits.folds, splits.disjoint_columns, examples.audio_hashes, own)
    return protocol, splits, leakage


def _split(settings: TrainSettings, examples: TrainingExamples, protocol: str) -> Splits:
    if settings.test_on is None:
        utterances = examples.corpus.utterances
        return split_corpus(examples.utterances, protocol, utterances, settings.validation)
    return split_across(
        examples.utterances,
        settings.train_on,
        settings.test_on,
        examples.audio_hashes,
        validation=settings.validation,
        balance=bool(settings.balance),
    )


def _own_columns(
    settings: TrainSettings, examples: TrainingExamples
) -> dict[str, Mapping[str, str]]:
    columns = examples.corpus.columns
    for name in settings.leakage_columns:
        if not columns:
            raise UsageError(
                f"leakage column '{name}': the manifest of {settings.dataset} in the cache has no "
                "columns of its own: add the column to your manifest, and extract or import again"
            )
        if name not in columns:
            raise unknown(f"leakage column of {settings.dataset}", name, columns)
    return {name: columns[name] for name in settings.leakage_columns}


def _processes(backend: Backend, device: torch.device) -> int:
    """Return how many trainings share the memory of this machine."""
    return 1 if backend.remote else max(1, backend.processes(device))


def _threads(backend: Backend, device: torch.device) -> int | None:
    """Return the threads of a training; ``None`` where a worker of a scheduler decides.

    Processes on this machine share its cores, and the processes of a SLURM job those of the job.
    """
    if backend.in_process:
        return torch.get_num_threads()
    return backend.cores_of_worker(device)


def _reports(
    jobs: Sequence[TrainingJob], backend: Backend, device: torch.device, shown: ShownTrainings
) -> Generator[TrainingReport]:
    """Do the trainings on a backend, and show their epochs."""

    def requirements() -> WorkerRequirements:
        folders = {job.run for job in jobs}
        folders |= folders_of(origin["spec"] for job in jobs for origin in job.plugins.values())
        return WorkerRequirements.of_this_process(folders, device.type == "cuda")

    def shown_here(job: TrainingJob) -> TrainingReport:
        return run_training(job, lambda epoch: shown.look())

    def advance() -> object:
        return {run: RunFolder(run).saved_states() for run in {job.run for job in jobs}}

    work = shown_here if backend.in_process else run_training
    with nullcontext() if backend.in_process else shown.watched():
        for job, report in run_jobs(
            work, jobs, backend, device, requirements, pause=_PAUSE, advance=advance
        ):
            if report is None:
                raise PipelineError(
                    f"workers died while they trained fold '{job.fold}' with seed {job.seed} "
                    f"(too little memory?); what was finished is kept: {backend.memory_advice}, "
                    "then run the same command again"
                )
            yield report


def _finished(planned: PlannedRun) -> Run | None:
    """Write the scores if the trainings of the wanted folds are done; then return the run."""
    run, jobs = planned.run, planned.jobs()
    if not planned.scored:
        if not all(job.done for job in jobs):
            return None
        with lease(run.folder, "scores", _PATIENCE) as acquired:
            if acquired and not planned.scored:
                _write_scores(planned)
    if run.finished:
        run.clean()  # a process may have been killed after it wrote the scores
    return Run(run.path, run.read_json("metrics.json"), planned.examples.corpus.notes)


def _write_scores(planned: PlannedRun) -> None:
    """Write the scores of all folds that are trained, also of those that were asked for before."""
    jobs_of = {fold.name: planned.jobs_of(fold.name) for fold in planned.splits.folds}
    jobs = [job for of in jobs_of.values() if all(job.done for job in of) for job in of]
    folds = {fold.name: fold for fold in planned.splits.folds}
    predicted: list[tuple[Fold, int, Tensor]] = []
    facts = []
    used: dict[str, set[Any]] = {"threads": set(), "cpu": set()}
    for job in jobs:
        tensors, of_training = from_safetensors(planned.run.trainings, job.result)
        for name in used.keys() & of_training.keys():
            used[name].add(of_training.pop(name))
        predicted.append((folds[job.fold], job.seed, tensors[PREDICTED]))
        facts.append(of_training)
    metrics = _metrics(planned, predicted, facts)
    names = [job.name for job in jobs]
    planned.run.finish(names, planned.examples.targets, predicted, metrics, used)


def _metrics(
    planned: PlannedRun,
    predicted: Sequence[tuple[Fold, int, Tensor]],
    facts: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    targets = planned.examples.targets
    scorer = scorer_of(targets)
    parts, chance, folds = [], [], []
    for (fold, seed, values), of_training in zip(predicted, facts, strict=True):
        part = predictions(fold, seed, values, targets)
        parts.append(part)
        chance.append(replace(part, predicted=[targets.chance(fold.train)] * len(part.labels)))
        folds.append(
            {
                "fold": fold.name,
                "seed": seed,
                **scores(part.labels, part.predicted, scorer),
                "utterances": {
                    "train": len(fold.train),
                    "validation": len(fold.validation),
                    "test": len(fold.test),
                },
                **of_training,
                **scorer.details(part.labels, part.predicted),
            }
        )
    each = {fold.name: groups_among(fold.test) for fold, *_ in predicted}
    tested = {utterance.id: utterance for fold, *_ in predicted for utterance in fold.test}
    groups = groups_among(tested.values())
    read = turns_read(planned.splits.folds, planned.examples.context)
    tests = {
        name: {
            "aggregate": aggregate(of_fold(parts, name), scorer, groups=each[name].group_of),
            "chance": aggregate(of_fold(chance, name), scorer, groups=each[name].group_of),
            "intervals": each[name].as_json(),
        }
        for name in planned.settings.test_on or ()
        if name in each
    }
    return {
        "head": short_name(planned.settings.head),
        "dataset": planned.settings.dataset,
        "protocol": planned.protocol,
        "validation": planned.settings.validation,
        "target": list(targets.names),
        "classes": list(targets.classes) if targets.over_classes else [],
        "notes": list(planned.examples.corpus.notes),
        "selected_by": f"best {planned.settings.monitor} on the validation part",
        "test_utterances": len(tested),
        "not_trained": [fold.name for fold in planned.splits.folds if fold.name not in each],
        "excluded": dict(Counter(planned.excluded.values())),
        **({"context_turns": len(read)} if read else {}),
        "leakage": {**planned.leakage.as_json(), "lines": planned.leakage.lines()},
        "intervals": groups.as_json(),
        "aggregate": aggregate(parts, scorer, groups=groups.group_of),
        "chance": aggregate(chance, scorer, groups=groups.group_of),
        "pooled": pooled_details(parts, scorer),
        "folds": folds,
        **({"tests": tests} if planned.settings.test_on else {}),
    }
