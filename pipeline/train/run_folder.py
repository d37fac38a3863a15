"""The folder of a run: everything that was asked, done and found, in plain files."""

import csv
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tomli_w
import torch
from safetensors.torch import save

from ..errors import UsageError
from .examples import Examples
from .protocols import Fold
from .settings import TrainSettings
from .trainer import Trained

_PACKAGES = ("mser", "torch", "numpy", "scikit-learn", "safetensors")


class RunFolder:
    """Writes a run folder.

    ``config.toml`` what was asked; ``folds.json`` which utterance was in which part, and which were
    left out and why; ``log.jsonl`` a line an epoch; ``checkpoints/*.safetensors`` the best epoch's
    weights; ``predictions.csv`` the test parts; ``metrics.json``; ``environment.json``.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.path = settings.out or _new_folder(settings)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(f"'{self.path}' is there already: give another folder with --out")
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)

    def write_config(self, settings: TrainSettings, protocol: str, examples: Examples) -> None:
        """Write the settings as they are used, with every default filled in."""
        asked = asdict(settings)
        asked.pop("out")
        asked.pop("runs")
        asked["cache"] = str(settings.cache)
        asked["protocol"] = protocol
        asked["seeds"] = list(settings.seeds)
        asked["encoders"] = {
            modality: {"name": entry.spec.encoder, "key": entry.spec.key}
            for modality, entry in examples.entries.items()
        }
        known = {name: value for name, value in asked.items() if value is not None}
        (self.path / "config.toml").write_text(tomli_w.dumps(known), encoding="utf-8")

    def write_folds(self, folds: Sequence[Fold], excluded: Mapping[str, str]) -> None:
        """Write the ids of every part."""
        parts = [
            {
                "fold": fold.name,
                **{
                    part: [one.id for one in getattr(fold, part)]
                    for part in ("train", "validation", "test")
                },
            }
            for fold in folds
        ]
        self._write_json("folds.json", {"folds": parts, "excluded": dict(excluded)})

    def write_environment(self, device: torch.device) -> None:
        """Write what the numbers may depend on besides the settings."""
        self._write_json(
            "environment.json",
            {
                "command": shlex.join(sys.argv),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": platform.node(),
                "platform": platform.platform(),
                "python": platform.python_version(),
                "packages": {name: version(name) for name in _PACKAGES},
                "device": str(device),
                "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
                "threads": torch.get_num_threads(),
            },
        )

    def log(self, fold: Fold, seed: int, values: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"fold": fold.name, "seed": seed, **values}) + "\n")

    def write_checkpoint(self, fold: Fold, seed: int, trained: Trained) -> None:
        """Write the weights of the best epoch."""
        name = f"{quote(fold.name, safe='')}-seed{seed}.safetensors"  # a session may be called a/b
        weights = {key: value.contiguous() for key, value in trained.weights.items()}
        # Written by us: the library makes files that nobody else in the group can read.
        (self.path / "checkpoints" / name).write_bytes(save(weights))

    def write_predictions(
        self, classes: Sequence[str], trained: Sequence[tuple[Fold, int, Trained]]
    ) -> None:
        """Write every test utterance's label, prediction and class probabilities."""
        path = self.path / "predictions.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["id", "label", "predicted", *(f"p_{name}" for name in classes), "fold", "seed"]
            )
            for fold, seed, one in trained:
                rows = zip(fold.test, one.predicted, one.probabilities.tolist(), strict=True)
                for utterance, predicted, probabilities in rows:
                    writer.writerow(
                        [utterance.id, utterance.label, predicted, *probabilities, fold.name, seed]
                    )

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the scores."""
        self._write_json("metrics.json", metrics)

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        (self.path / name).write_text(text + "\n", encoding="utf-8")


def _new_folder(settings: TrainSettings) -> Path:
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    return settings.runs / f"{settings.dataset}-{settings.head}-{now}"
