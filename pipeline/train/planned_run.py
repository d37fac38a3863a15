"""A run that can start: its folder exists, and its folds are known."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..protocols.folds import Splits
from ..protocols.leakage import Leakage
from .examples import TrainingExamples
from .jobs import TrainingJob
from .run import validation_text
from .run_folder import RunFolder
from .settings import TrainSettings
from .speaker_normalisation import speaker_note


@dataclass(frozen=True)
class PlannedRun:
    """What a run trains, on what, and where."""

    settings: TrainSettings
    protocol: str
    examples: TrainingExamples
    splits: Splits
    excluded: Mapping[str, str]
    leakage: Leakage
    run: RunFolder

    @property
    def notes(self) -> list[str]:
        """What a reader of the scores must know about the corpus and the features."""
        notes = list(self.examples.corpus.notes)
        if by_speaker := self.settings.speaker_normalisation:
            notes.append(speaker_note(self.examples.readable, by_speaker))
        return notes

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
