"""Evaluate a finished run on its test parts again, also with a modality missing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ...cache import FeatureCache
from ...heads import Head
from ..errors import PipelineError, UsageError, unknown
from ..evaluation.metrics import aggregate
from ..train.determinism import reproducible
from ..train.jobs import build, examples_of, trainer_of
from ..train.presets import settings_of
from ..train.run import score_table
from ..train.run_folder import RunFolder, migrated_config
from ..train.settings import TrainSettings
from ..train.trainer import predictions


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
        return "\n".join([*lines, *score_table(rows, facts["trainings"] > 1), f"  {self.path}"])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self.facts


def evaluate(
    run: Path, missing: Sequence[str] = (), cache: str | None = None, device: str = "auto"
) -> Evaluation:
    """Score the heads of a run on their own test parts, and write the result into its folder.

    Args:
        run: the folder of a finished run.
        missing: modalities that are hidden from the heads: their length is 0.
        cache: where the features are now, if they have moved.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: it is not a finished run, does not have a modality, or no modality is left.
        PipelineError: a checkpoint is damaged.
        CacheError: the cache does not hold the features.
    """
    folder = RunFolder(run)
    config, metrics = folder.config(), folder.read_json("metrics.json")
    settings = settings_of_run(config, cache, device)
    for modality in missing:
        if modality not in settings.encoders:
            raise unknown("modality of this run", modality, settings.encoders)
    if set(missing) == set(settings.encoders):
        raise UsageError(
            f"{run} has no modality other than {', '.join(missing)}: leave one of them"
        )
    examples = examples_of(settings)
    notes = list(metrics["notes"])
    if examples.digest != config["digest"]:
        notes.append("the features are not those that the run was trained on")
    trainer, parts = trainer_of(settings, examples), []
    head = build(settings, examples).to(trainer.device)
    features = trainer.features(head.layers)
    classes = examples.corpus.classes
    with reproducible():
        for fold, seed in product(folder.folds(examples), settings.seeds):
            load_weights(head, folder.checkpoint(fold.name, seed))
            logits = trainer.predict(head, features, fold.test, missing)
            parts.append(predictions(fold, seed, logits, classes))
    name = "-".join(["without", *missing]) if missing else "again"
    facts = {
        "head": metrics["head"],
        "dataset": metrics["dataset"],
        "name": name.replace("-", " ", 1).replace("-", " and "),
        "missing": list(missing),
        "notes": notes,
        "trainings": len(parts),
        "aggregate": aggregate(parts),
        "as_trained": metrics["aggregate"],
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


def settings_of_run(config: dict[str, Any], cache: str | None, device: str) -> TrainSettings:
    """Return the settings that a run was made with, except ``cache`` and ``device``.

    Raises:
        CacheError: the layers of an old run are named by position, and the cache does not hold its
            features.
    """
    cache = cache or str(config["cache"])
    encoders = {modality: encoder["key"] for modality, encoder in config["encoders"].items()}

    def stored() -> dict[str, tuple[int, ...]]:
        features = FeatureCache(cache)
        return {
            modality: features.open(config["dataset"], key, modality=modality).spec.layers
            for modality, key in encoders.items()
        }

    not_settings = {"format", "mser", "digest", "encoders", "cache", "device", "head_options"}
    migrated = migrated_config(config, stored)
    values = {key: value for key, value in migrated.items() if key not in not_settings}
    options = {f"head.{key}": value for key, value in migrated["head_options"].items()}
    return settings_of(
        {**values, **options, "modalities": list(encoders)},
        cache=cache,
        encoders=encoders,
        device=device,
    )
