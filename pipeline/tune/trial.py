"""One trial: each fold trained once, and scored on its validation part alone."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import NotFiniteError, UsageError
from ..evaluation.scorers import larger_is_better
from ..protocols.folds import Fold
from ..train.checkpoint import TrainingProgress, TrainingState
from ..train.determinism import reproducible
from ..train.examples import TrainingExamples
from ..train.jobs import trainer_of
from ..train.presets import settings_of
from ..train.settings import TrainSettings
from .ranges import Ranges, current_values
from .trials import TrialRecord, next_trial

Report = Callable[[int, float], None]
"""Called with a step and the score so far; it ends the trial by an exception."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a search share."""

    values: Mapping[str, Any]
    """The settings, by the names of a preset."""
    others: Mapping[str, Any]
    """Further fields of the settings; see :func:`settings_of`."""
    settings: TrainSettings
    """The settings of trial 0, made of both."""
    examples: TrainingExamples
    """What is trained on."""
    folds: Sequence[Fold]
    """The folds of the protocol."""
    ranges: Ranges
    """What the search changes."""

    @property
    def smaller(self) -> bool:
        """Whether a smaller score is better."""
        return not larger_is_better(self.settings.monitor)


class _Stopped(Exception):  # noqa: N818 -- it is no error
    """The trial is stopped because others were better."""


def run_trial(plan: Plan, records: Sequence[TrialRecord]) -> TrialRecord:
    """Run the trial after those in ``records``.

    A trial with the settings of an earlier one takes its score, because a training is reproducible.

    Raises:
        UsageError, PipelineError: see :func:`train_head`; only for trial 0. A later trial that
            cannot be trained is a failed trial.
    """
    number, started = len(records), time.monotonic()
    by_fold = len(plan.folds) > 1
    if number:
        trial = next_trial(records, plan.ranges, smaller=plan.smaller, by_fold=by_fold)
        values = dict(trial.params)
    else:
        trial, values = None, current_values(plan.ranges, plan.settings)
    for earlier in records:
        if earlier.values == values:
            return replace(earlier, number=number, seconds=0.0)
    course: list[tuple[int, float]] = []

    def report(step: int, score: float) -> None:
        course.append((step, score))
        if trial is not None:
            trial.report(score, step)
            if trial.should_prune():
                raise _Stopped

    scores: dict[str, float] = {}
    state, reason, score = "complete", None, None
    try:
        changed = values if number else {}  # the preset's own values may be those of no option
        settings = settings_of({**plan.values, **changed}, **plan.others)
        for index, fold in enumerate(plan.folds):
            within = (lambda *_: None) if by_fold else report
            scores[fold.name] = _validated(plan, settings, fold, within)
            score = sum(scores.values()) / len(scores)
            if by_fold:
                report(index, score)
    except _Stopped:
        state, score = "pruned", course[-1][1]
    except (NotFiniteError, UsageError, torch.OutOfMemoryError) as error:
        if not number:
            raise
        state, score, reason = "failed", None, str(error).partition("\n")[0]
    seconds = round(time.monotonic() - started, 3)
    return TrialRecord(number, state, values, score, scores, course, seconds, reason)


def _validated(plan: Plan, settings: TrainSettings, fold: Fold, report: Report) -> float:
    """Train one fold with the first seed; return the best epoch's score on the validation part."""
    better = min if plan.smaller else max
    best: list[float] = []

    def after_epoch(
        state: TrainingState | None, progress: TrainingProgress, logged: Mapping[str, Any]
    ) -> None:
        score = float(logged["validation"][settings.monitor])
        best[:] = [better([*best, score])]
        report(progress.epoch, best[0])

    with reproducible():
        trainer = trainer_of(settings, plan.examples)
        trainer.train(fold, settings.seeds[0], after_epoch=after_epoch, test=False)
    return best[0]
