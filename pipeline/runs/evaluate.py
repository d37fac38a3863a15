"""Evaluate a finished run on its test parts again, also with a modality missing."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ...heads import Head
from ..errors import PipelineError, UsageError, unknown
from ..evaluation.groups import counted_groups, groups_among
from ..evaluation.metrics import aggregate
from ..evaluation.predictions import read_predictions
from ..evaluation.registry import METRIC_PLUGINS
from ..evaluation.scorers import scorer_of
from ..feature_cache import FeatureCache
from ..option_texts import path_of, place_of
from ..train.context import context_turns
from ..train.determinism import reproducible
from ..train.head_plugins import HEAD_PLUGINS
from ..train.jobs import build, examples_of, trainer_of
from ..train.objectives import predictions
from ..train.presets import settings_of
from ..train.run import Run, score_table, targets_in
from ..train.run_folder import RunFolder, cache_of_run, migrated_config
from ..train.settings import TrainSettings


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run's heads on their test parts; ``facts`` is the content of ``path``."""

    path: Path
    facts: dict[str, Any]

    def __str__(self) -> str:
        """Return the scores, and those of the run itself."""
        facts = self.facts
        rows = {
            "as trained": facts["as_trained"],
            facts["name"]: facts["aggregate"],
            "chance": facts["chance"],
        }
        lines = [f"{facts['head']} on {facts['dataset']}, {facts['name']}"]
        lines += [f"  note: {note}" for note in facts["notes"]]
        several = facts["trainings"] > 1
        table = score_table(rows, several, counted_groups(facts["intervals"]), targets_in(facts))
        return "\n".join([*lines, *table, f"  {self.path}"])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self.facts


def evaluate(
    run: str | Path | Run,
    missing: str | Sequence[str] = (),
    cache: Any = None,
    device: str = "auto",
    groups: str | None = None,
    *,
    head: str | None = None,
) -> Evaluation:
    """Score the heads of a run on their own test parts, and write the result into its folder.

    Args:
        run: the folder of a finished run, or the run.
        missing: a modality, or several, that are hidden from the heads: their length is 0.
        cache: where the features are now, if they have moved.
        device: ``auto``, ``cpu`` or ``cuda``.
        groups: what the bootstrap of the intervals draws; see
            :mod:`~mser.pipeline.evaluation.groups`.
        head: the head of the run again, if it is of a plug-in whose code has moved or changed, or
            was not used here before.

    Raises:
        UsageError: it is not a finished run, does not have a modality, no modality is left, its
            head is of a plug-in that ``head`` must name, or the test utterances cannot be grouped
            so.
        PipelineError: a checkpoint is damaged.
        CacheError: the cache does not hold the features.
    """
    run, missing = path_of(run), [missing] if isinstance(missing, str) else [*missing]
    folder = RunFolder(run)
    config, metrics = folder.config(), folder.read_json("metrics.json")
    settings, changed = settings_of_run(run, config, cache, device, head)
    METRIC_PLUGINS.add_known()
    for modality in missing:
        if modality not in settings.encoders:
            raise unknown("modality of this run", modality, settings.encoders)
    if set(missing) == set(settings.encoders):
        raise UsageError(
            f"{run} has no modality other than {', '.join(missing)}: leave one of them"
        )
    examples = examples_of(settings)
    notes = [*metrics["notes"], *changed]
    if examples.digest != config["digest"]:
        notes.append("the features are not those that the run was trained on")
    trainer, parts = trainer_of(settings, examples), []
    module = build(settings, examples).to(trainer.device)
    features = trainer.features(module)
    scorer = scorer_of(examples.targets)
    trained = {fold["fold"] for fold in metrics["folds"]}
    folds = [fold for fold in folder.folds(examples) if fold.name in trained]
    tested = {utterance.id: utterance for fold in folds for utterance in fold.test}
    drawn = groups_among(tested.values(), groups)
    with reproducible():
        for fold, seed in product(folds, settings.seeds):
            load_weights(module, folder.checkpoint(fold.name, seed))
            context = context_turns(fold, "test", examples.context)
            logits = trainer.predict(module, features, fold.test, missing, context)
            predicted = module.objective.predictions(logits)
            parts.append(predictions(fold, seed, predicted, examples.targets))
    as_trained = read_predictions(run).parts
    name = "-".join(["without", *missing]) if missing else "again"
    facts = {
        "head": metrics["head"],
        "dataset": metrics["dataset"],
        "target": list(settings.target),
        "classes": metrics["classes"],
        "name": name.replace("-", " ", 1).replace("-", " and "),
        "missing": list(missing),
        "notes": [*notes, *drawn.notes()],
        "trainings": len(parts),
        "intervals": drawn.as_json(),
        "aggregate": aggregate(parts, scorer, groups=drawn.group_of),
        "as_trained": aggregate(as_trained, scorer, groups=drawn.group_of),
        "chance": metrics["chance"],
    }
    folder.folder.write(f"{name}.json", (json.dumps(facts, indent=2) + "\n").encode())
    return Evaluation(run / f"{name}.json", facts)


def load_weights(head: Head, path: Path) -> None:
    """Give a head the weights of a checkpoint.

    Raises:
        PipelineError: the file is missing or damaged, or belongs to another head.
    """
    try:
        head.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PipelineError(
            f"{path} is missing or damaged: train the run again, with another --out"
        ) from error


def settings_of_run(
    run: Path, config: dict[str, Any], cache: Any, device: str, head: str | None = None
) -> tuple[TrainSettings, list[str]]:
    """Return the settings that a run was made with, except ``cache`` and ``device``, and notes.

    The code of a plug-in runs only if the user has named it, now as ``head`` or before.

    Raises:
        UsageError: ``head`` must name the head of a plug-in; or the cache is empty or has moved.
        CacheError: the layers of an old run are named by position, and the cache does not hold its
            features.
    """
    plugins = config.get("plugins", {})
    config, notes = dict(config), []
    if head is None:
        config["head"] = HEAD_PLUGINS.admit_recorded(config["head"], plugins.get("head"), str(run))
    else:
        config["head"] = HEAD_PLUGINS.admit(head)
        origin = HEAD_PLUGINS.origin(config["head"])
        if (origin and origin.sha256) != plugins.get("head", {}).get("sha256"):
            notes.append(f"the code of {head} is not that with which the run was trained")
    if "monitor" in plugins:
        config["monitor"] = "loss"  # the epoch is chosen: the code of the metric need not run
    cache = cache_of_run(run, config) if cache is None else place_of(cache)
    if not FeatureCache(cache).datasets():
        raise UsageError(
            f"{cache} holds no features, and {run} was trained on those of {config['dataset']}: if "
            "the cache has moved, give its folder or URL with --cache"
        )
    encoders = {modality: str(encoder["key"]) for modality, encoder in config["encoders"].items()}
    if not all(re.fullmatch("[0-9a-f]+", key) for key in encoders.values()):  # no name of code
        raise UsageError(f"{run / 'config.toml'} has an encoder without a key: train the run again")

    def stored() -> dict[str, tuple[int, ...]]:
        features = FeatureCache(cache)
        return {
            modality: features.open(config["dataset"], key, modality=modality).spec.layers
            for modality, key in encoders.items()
        }

    not_settings = {"format", "mser", "digest", "encoders", "cache", "device", "head_options"}
    not_settings |= {"plugins"}
    migrated = migrated_config(config, stored)
    values = {key: value for key, value in migrated.items() if key not in not_settings}
    options = {f"head.{key}": value for key, value in migrated["head_options"].items()}
    settings = settings_of(
        {**values, **options, "modalities": list(encoders)},
        cache=cache,
        encoders=encoders,
        device=device,
    )
    return settings, notes
