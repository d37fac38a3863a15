"""Score the trainings of a run, and write its files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..evaluation.groups import groups_among
from ..evaluation.metrics import aggregate, of_fold, pooled_details, scores
from ..evaluation.scorers import scorer_of
from ..plugins import short_name
from ..protocols.folds import Fold
from .checkpoint import from_safetensors
from .context import turns_read
from .jobs import PREDICTED
from .objectives import predictions
from .planned_run import PlannedRun


def write_scores(planned: PlannedRun) -> None:
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
    scored = partial(aggregate, scorer=scorer, groups=groups.group_of)
    read = turns_read(planned.splits.folds, planned.examples.context)
    together = []
    if len(planned.settings.seeds) > 1:
        means = _means_of_seeds(predicted)
        together = [predictions(fold, 0, values, targets) for fold, values in means]
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
        "notes": planned.notes,
        "selected_by": f"best {planned.settings.monitor} on the validation part",
        "test_utterances": len(tested),
        "not_trained": [fold.name for fold in planned.splits.folds if fold.name not in each],
        "excluded": dict(Counter(planned.excluded.values())),
        **({"context_turns": len(read)} if read else {}),
        "leakage": {**planned.leakage.as_json(), "lines": planned.leakage.lines()},
        "intervals": groups.as_json(),
        "aggregate": scored(parts),
        **({"seeds_together": scored(together)} if together else {}),
        "chance": scored(chance),
        "pooled": pooled_details(parts, scorer),
        "folds": folds,
        **({"tests": tests} if planned.settings.test_on else {}),
    }


def _means_of_seeds(
    predicted: Sequence[tuple[Fold, int, Tensor]],
) -> Iterator[tuple[Fold, Tensor]]:
    """Yield each fold with the mean of its seeds' predictions, which ``mser predict`` gives."""
    folds = {fold.name: fold for fold, *_ in predicted}
    for name, fold in folds.items():
        of_seeds = [values for other, _, values in predicted if other.name == name]
        yield fold, torch.stack(of_seeds).mean(dim=0)
