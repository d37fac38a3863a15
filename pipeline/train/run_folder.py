"""The folder of a run: everything that was asked, done and found, in plain files."""

import csv
import hashlib
import io
import json
import platform
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tomli_w
import torch
from torch import Tensor

from ...cache.storage.folder import TEMPORARY
from ...cache.storage.leases import read_leases
from ...cache.storage.local import LocalFolder
from ..errors import UsageError
from ..protocols.folds import PARTS, Fold
from .examples import Examples

_ABANDONED = 60.0  # seconds: a temporary file that is older is of a process that was killed
_PACKAGES = ("mser", "torch", "numpy", "scikit-learn", "safetensors")


class RunFolder:
    """A run folder.

    ``config.toml`` what was asked; ``folds.json`` which utterance was in which part, and which were
    left out and why; ``log.jsonl`` a line an epoch; ``checkpoints/*.safetensors`` the best epoch's
    weights; ``predictions.csv`` the test parts; ``metrics.json``; ``environment.json``. While it is
    not finished, ``trainings/`` holds the states, logs and results of its trainings.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = LocalFolder(path)
        self.trainings = LocalFolder(path / "trainings")
        self.checkpoints = LocalFolder(path / "checkpoints")

    def checkpoint(self, fold: str, seed: int) -> Path:
        """Return the file of the best epoch's weights of a training."""
        return self.checkpoints.at / f"{training_name(fold, seed)}.safetensors"

    @property
    def finished(self) -> bool:
        """Whether its scores are there."""
        return (self.path / "metrics.json").exists()

    def begin(
        self, config: Mapping[str, Any], folds: str, device: torch.device, threads: int | None
    ) -> None:
        """Make the folder, or go on in one that was made for the same; a finished one stays as is.

        Raises:
            UsageError: the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._there_already()
        if any(not name.startswith(TEMPORARY) for name in self.folder.names()):
            self._require_same(config, folds)
        if self.finished:
            return
        self.folder.make()
        # First, and by one process alone: it says to others that come, or come back, whose it is.
        if not self.folder.create("config.toml", tomli_w.dumps(config).encode()):
            self._require_same(config, folds)
            self._write("config.toml", tomli_w.dumps(config))  # the cache may have moved
        for folder in (self.checkpoints, self.trainings):
            folder.make()
        self._write("folds.json", folds)
        self._write_json("environment.json", _environment(device, threads))

    def config(self) -> dict[str, Any]:
        """Return what the run was asked.

        Raises:
            UsageError: the folder is not that of a run.
        """
        try:
            return tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(f"'{self.path}' is not the folder of a run") from None

    def folds(self, examples: Examples) -> list[Fold]:
        """Return the folds as they were divided.

        Raises:
            UsageError: an utterance is not among the examples any more.
        """
        known = {one.id: one for one in examples.utterances}
        said = self.read_json("folds.json")["folds"]
        gone = {id for fold in said for part in PARTS for id in fold[part]} - set(known)
        if gone:
            raise UsageError(
                f"{self.path}: the cache cannot give {len(gone)} of its utterances any more, such "
                f"as '{min(gone)}'"
            )
        return [
            Fold(fold["fold"], *(tuple(known[id] for id in fold[part]) for part in PARTS))
            for fold in said
        ]

    def read_json(self, name: str) -> Any:
        """Return the content of one of its files.

        Raises:
            UsageError: the file is not there, or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(
                f"'{self.path / name}' is not there or damaged: is it the folder of a finished run?"
            ) from None

    def finish(
        self,
        names: Sequence[str],
        classes: Sequence[str],
        predicted: Sequence[tuple[Fold, int, Tensor]],
        metrics: Mapping[str, Any],
    ) -> None:
        """Write what was found, the scores last, and delete what was needed on the way."""
        logs = [self.trainings.read(f"{name}.jsonl").decode() for name in names]
        self._write("log.jsonl", "".join(logs))
        self._write("predictions.csv", _predictions(classes, predicted))
        self._write_json("metrics.json", metrics)
        self.clean()

    def clean(self) -> None:
        """Delete what a finished run has no use for, and what killed processes have left."""
        self.folder.remove("trainings")
        for folder in (self.folder, self.checkpoints):
            for name in folder.names():
                if name.startswith(TEMPORARY):
                    with suppress(FileNotFoundError):  # it had a writer, which has just renamed it
                        if folder.age(name) > _ABANDONED:
                            folder.remove(name)
        for name, lease in read_leases(self.folder).items():
            if lease is None or not lease.alive:
                self.folder.remove(name)

    def _require_same(self, config: Mapping[str, Any], folds: str) -> None:
        if not (self.path / "config.toml").exists():
            raise self._there_already()
        before = _flat(self.config())
        now = _flat(tomllib.loads(tomli_w.dumps(config)))
        for key in sorted((set(before) | set(now)) - {"cache"}):  # it may have moved
            if before.get(key) != now.get(key):
                raise UsageError(
                    f"'{self.path}' is that of another run, with {key} = {before.get(key)!r} and "
                    f"not {now.get(key)!r}: give another folder with --out"
                )
        known = self.path / "folds.json"  # written after the configuration
        if known.exists() and known.read_text(encoding="utf-8") != folds:
            raise UsageError(
                f"'{self.path}' was begun with other folds than the protocol gives now: give "
                "another folder with --out"
            )

    def _there_already(self) -> UsageError:
        return UsageError(f"'{self.path}' is there already: give another folder with --out")

    def _write(self, name: str, text: str) -> None:
        self.folder.write(name, text.encode())

    def _write_json(self, name: str, value: Any) -> None:
        self._write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def training_name(fold: str, seed: int) -> str:
    """Return the name of the files of a training."""
    return f"{quote(fold, safe='')}-seed{seed}"  # a session may be called a/b


def named_by_content(runs: Path, config: Mapping[str, Any]) -> Path:
    """Return a run folder below ``runs`` that is the same for the same config, but for the cache.

    The features themselves are in the config, by their digest.
    """
    asked = {key: value for key, value in config.items() if key != "cache"}
    content = hashlib.sha256(tomli_w.dumps(asked).encode()).hexdigest()
    return runs / f"{config['dataset']}-{config['head']}-{content[:8]}"


def folds_as_json(folds: Sequence[Fold], excluded: Mapping[str, str]) -> str:
    """Return the ids of every part, and the reason for each utterance that is in none."""
    parts = [
        {"fold": fold.name, **{part: [one.id for one in fold.part(part)] for part in PARTS}}
        for fold in folds
    ]
    return json.dumps({"folds": parts, "excluded": dict(excluded)}, indent=2) + "\n"


def _environment(device: torch.device, threads: int | None) -> dict[str, Any]:
    """Return what the numbers may depend on besides the settings."""
    return {
        "command": shlex.join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": threads,
    }


def _predictions(classes: Sequence[str], predicted: Sequence[tuple[Fold, int, Tensor]]) -> str:
    """Return every test utterance's label, prediction and class probabilities as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(
        ["id", "label", "predicted", *(f"p_{name}" for name in classes), "fold", "seed"]
    )
    for fold, seed, probabilities in predicted:
        for utterance, row in zip(fold.test, probabilities, strict=True):
            best = classes[int(row.argmax())]
            writer.writerow([utterance.id, utterance.label, best, *row.tolist(), fold.name, seed])
    return text.getvalue()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
