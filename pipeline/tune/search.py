"""The search: trials on validation parts, then one training whose test parts are scored once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from ...cache.storage.leases import lease
from ...cache.storage.local import LocalFolder
from ..errors import UsageError
from ..option_texts import assigned
from ..progress import print_note, progress
from ..train.examples import TrainingExamples
from ..train.jobs import examples_of
from ..train.presets import settings_of
from ..train.runner import checked_splits, train_head
from ..validation import read_toml
from .ranges import Ranges, as_text, ranges_of
from .trial import Plan, run_trial
from .trials import read_trials, write_trials
from .tuning import Tuning

_STUDY = "study.toml"
_RUN = "run"


def tune(
    preset: str,
    values: Mapping[str, Any],
    trials: int,
    out: Path,
    *,
    test: bool = True,
    assignments: Sequence[str] = (),
    **others: Any,
) -> Tuning:
    """Search for settings on the validation parts, and train with the best ones.

    A trial trains each fold of the protocol once, with the first seed, and never reads a test part.
    Its score is the mean over the folds of the best epoch's ``monitor`` on the validation part.
    Trial 0 has the settings of the preset. A search that was interrupted continues, and the same
    command gives the same result.

    Args:
        preset: name or path of the preset; its table ``[tune]`` gives the ranges.
        values: the settings, by the names of a preset.
        trials: the number of trials, with those of an earlier call.
        out: the folder of the search; the last training is the run folder ``run`` in it.
        test: train with the best settings and all seeds at the end, and score the test parts.
        assignments: ``key=value`` texts that replace values.
        others: see :func:`settings_of`. ``workers`` are processes of the last training.

    Raises:
        UsageError: a value or a range is invalid, the folder holds another search, or the test
            parts are already scored and more trials are asked for.
        CacheError, PipelineError: see :func:`train_head`.
    """
    if trials < 1:
        raise UsageError(f"--trials {trials}: give 1 or more")
    settings = settings_of(values, **others).with_overrides(assignments)
    if settings.test_on is not None:
        # Its folds have one training part and one validation part: a trial would train it for each.
        raise UsageError(
            f"{preset} tests on {', '.join(settings.test_on)}: mser tune searches on one corpus, "
            "so search with --dataset, and train with --train-on, --test-on and the best settings"
        )
    values = {**values, **assigned(assignments)}
    examples = examples_of(settings)
    protocol, splits, leakage = checked_splits(settings, examples)
    ranges = ranges_of(preset, values, settings, examples)
    folder = LocalFolder(out)
    _begin(folder, values, examples, ranges)
    with lease(folder, "search") as acquired:
        if not acquired:
            raise UsageError(f"another process searches in '{out}': wait for its end")
        records = read_trials(folder)
        scored = (out / _RUN / "metrics.json").exists()
        if scored and trials > len(records):
            raise UsageError(
                f"'{out}': the test parts were already scored after {len(records)} trials, so no "
                "further trial can be fair: give another folder with --out"
            )
        if trials > len(records):
            shared = (f"{protocol}: {line}" for line in leakage.lines())
            for line in dict.fromkeys([*splits.notes, *shared]):
                print_note(f"mser: {line}")
        plan = Plan(values, others, settings, examples, splits.folds, ranges)
        with progress(trials, "tuning", "trial") as bar:
            bar.update(min(trials, len(records)))
            while len(records) < trials:
                records.append(run_trial(plan, records))
                write_trials(folder, records)
                bar.update()
        tuning = Tuning(out, preset, settings.monitor, ranges, tuple(records), None)
        best = {**values, **tuning.best.values}
        tuning.write(best)
        if test:
            run = train_head(settings_of(best, out=out / _RUN, **others))
            tuning = replace(tuning, run=run)
            tuning.write(best)
        return tuning


def _begin(
    folder: LocalFolder, values: Mapping[str, Any], examples: TrainingExamples, ranges: Ranges
) -> None:
    """Write what is searched into the folder; refuse a folder in which something else is searched.

    Raises:
        UsageError: the folder holds another search, or something else.
    """
    study: dict[str, Any] = {
        "digest": examples.digest,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
        "ranges": {name: as_text(distribution) for name, distribution in ranges.items()},
    }
    if folder.at.exists() and not folder.at.is_dir():
        raise UsageError(f"'{folder.at}' is not a folder: give another one with --out")
    folder.make()
    known = folder.at / _STUDY
    if not known.exists() and any(folder.names()):
        raise UsageError(f"'{folder.at}' holds something else: give another folder with --out")
    if not folder.create(_STUDY, tomli_w.dumps(study).encode()):
        before = read_toml(known, "search")
        for part in ("settings", "ranges"):
            old, new = before.get(part, {}), study[part]
            for key in sorted({*old, *new}):
                if old.get(key) != new.get(key):
                    raise UsageError(
                        f"'{folder.at}' belongs to another search, with {part} {key} = "
                        f"{old.get(key)!r} and not {new.get(key)!r}: give another folder with --out"
                    )
        if before.get("digest") != examples.digest:
            raise UsageError(
                f"'{folder.at}': the features changed since the search began: give another folder "
                "with --out"
            )
