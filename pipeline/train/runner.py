"""Stage two: from features in the cache to trained heads and their scores."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from ...cache.storage.leases import lease
from ..compute import Backend, WorkerRequirements, run_jobs
from ..compute.device import chosen_device
from ..errors import PipelineError, UsageError, unknown
from ..plugins import folders_of, short_name
from ..progress import StatusBar, print_note
from ..protocols.across import split_across
from ..protocols.folds import Splits
from ..protocols.leakage import Leakage, check_leakage
from ..protocols.protocols import split_corpus
from .examples import TrainingExamples
from .jobs import (
    TrainingJob,
    TrainingReport,
    build,
    examples_of,
    reads_context,
    run_training,
)
from .planned_run import PlannedRun
from .run import Run
from .run_folder import CONFIG_FORMAT, RunFolder, folds_json, named_by_content
from .run_scores import write_scores
from .settings import TrainSettings
from .shown_trainings import ShownTrainings
from .speaker_normalisation import require_speakers
from .tracking import require_trackers

_PAUSE = 1.0  # seconds, while other processes do the jobs that are left
_PATIENCE = 3600.0  # seconds, while another process writes the scores


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
    if settings.standardise or settings.speaker_normalisation or head.reads_pooled:
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
        UsageError: the protocol, a fold, a column or the speakers do not exist.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    if settings.speaker_normalisation:
        require_speakers(examples.readable, settings.dataset)
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
                write_scores(planned)
    if run.finished:
        run.clean()  # a process may have been killed after it wrote the scores
    return Run(run.path, run.read_json("metrics.json"), tuple(planned.notes))
