"""The trials of a search in one file, and the search that continues from them.

``trials.jsonl`` has a line for each finished trial. The sampler of a trial is seeded by the number
of the trial and sees the earlier trials as the file has them, so a search that was interrupted
continues as if it had not been.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from ...cache.storage.local import LocalFolder
from ..errors import UsageError
from .ranges import Ranges, contains

TRIALS = "trials.jsonl"
_RANDOM = 8
"""The first trials draw their settings at random; afterwards the sampler learns from the scores."""
_UNPRUNED = 5
"""So many trials are complete before one is stopped early."""
_WARM_UP = 10
"""With a single fold, no trial is stopped before this epoch."""

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial."""

    number: int
    """Its number; trial 0 has the settings of the preset itself."""
    state: str
    """``complete``, ``pruned`` (stopped early because others were better) or ``failed``."""
    values: dict[str, Any]
    """The settings that the search gave it."""
    score: float | None
    """The mean over the folds of the best epoch's score on the validation part; of a pruned trial
    the last mean that was reported, ``None`` for a failed one."""
    folds: dict[str, float]
    """Fold → the score of its best epoch on the validation part."""
    course: list[tuple[int, float]]
    """The means that were reported so far, by step."""
    seconds: float
    """The time that it took."""
    reason: str | None = None
    """Why it failed."""


def read_trials(folder: LocalFolder) -> list[TrialRecord]:
    """Return the finished trials of a search.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder.at / TRIALS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [TrialRecord(**json.loads(line)) for line in lines]
        if [record.number for record in records] != list(range(len(records))):
            raise ValueError("a trial is missing")
        return records
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"'{path}' is damaged: give another folder with --out") from error


def write_trials(folder: LocalFolder, records: Sequence[TrialRecord]) -> None:
    """Write the finished trials; the old file is replaced only when the new one is complete."""
    folder.write(TRIALS, "".join(json.dumps(asdict(r)) + "\n" for r in records).encode())


def next_trial(
    records: Sequence[TrialRecord], ranges: Ranges, *, smaller: bool, by_fold: bool
) -> Trial:
    """Return the next trial, whose settings follow from its number and the finished trials.

    Args:
        records: the finished trials.
        ranges: what the settings are drawn from.
        smaller: whether a smaller score is better.
        by_fold: whether the trials report after each fold, and not after each epoch.

    The sampler is the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), and a trial
    is stopped if its score is below the median of the others at the same step (Golovin et al., KDD
    2017), both of Optuna.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=_RANDOM, seed=len(records)),
        pruner=optuna.pruners.MedianPruner(_UNPRUNED, 0 if by_fold else _WARM_UP),
        direction="minimize" if smaller else "maximize",
    )
    study.add_trials([_frozen(record, ranges) for record in records])
    return study.ask(dict(ranges))


def _frozen(record: TrialRecord, ranges: Ranges) -> optuna.trial.FrozenTrial:
    known: Mapping[str, Any] = record.values if set(record.values) == set(ranges) else {}
    # The preset's own values need not be in the ranges: then the sampler does not learn from them.
    inside = all(contains(ranges[name], value) for name, value in known.items())
    return optuna.trial.create_trial(
        state=_STATES[record.state],
        value=record.score,
        params=dict(known) if inside else {},
        distributions={name: ranges[name] for name in known} if inside else {},
        intermediate_values=dict(record.course),
    )
