"""The folder of a run: its settings, progress and results in plain files."""

import csv
import hashlib
import io
import json
import platform
import shlex
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
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
from ..evaluation.groups import COLUMNS
from ..evaluation.prediction_columns import cells, header
from ..plugins import short_name
from ..protocols.folds import PARTS, Fold
from ..targets import Targets
from .examples import TrainingExamples
from .former_options import former_layer, former_options, former_text_layer
from .head_options import in_one_form
from .layers import has_numbers, renumbered

CONFIG_FORMAT = 5
"""The ``format`` of ``config.toml``.

5 mixes the layers of text in ``hbaf`` by default. 4 tests averaged weights (``ema``). 3
standardises the inputs, and has the options of the heads that they have now; see
:mod:`.former_options` for those before. 2 names layers by the encoder's own numbers. 1, which has
no such key, named them by their position among the cached layers.
:func:`migrated_config` translates the older formats.
"""

# Keys in which two configurations of the same run may differ.
_NOT_COMPARED = {"cache", "format"}
_ABANDONED = 60.0  # seconds: an older temporary file belongs to a process that was killed
_PACKAGES = ("mser", "torch", "numpy", "scikit-learn", "safetensors")


class RunFolder:
    """A run folder.

    It holds ``config.toml`` (the settings), ``folds.json`` (the parts of each fold, and the
    excluded utterances with their reasons), ``log.jsonl`` (a line for each epoch),
    ``checkpoints/*.safetensors`` (the weights of the best epoch), ``predictions.csv`` (of the test
    parts), ``metrics.json`` and ``environment.json``. Until the run is finished, ``trainings/``
    holds the states, logs and results of its trainings. If only some folds were asked for,
    ``metrics.json`` has their scores, and names the other folds in ``not_trained``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = LocalFolder(path)
        self.trainings = LocalFolder(path / "trainings")
        self.checkpoints = LocalFolder(path / "checkpoints")

    def checkpoint(self, fold: str, seed: int) -> Path:
        """Return the file with the weights of the best epoch of a training."""
        return self.checkpoints.at / f"{training_name(fold, seed)}.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the scores of all folds are written."""
        return self._metrics_exist and not self._metrics().get("not_trained")

    @property
    def scored_folds(self) -> set[str]:
        """The names of the folds whose scores are written."""
        if not self._metrics_exist:
            return set()
        return {str(fold["fold"]) for fold in self._metrics()["folds"]}

    def begin(
        self,
        config: Mapping[str, Any],
        folds: str,
        stored: Mapping[str, Sequence[int]],
        device: torch.device,
        threads: int | None,
    ) -> None:
        """Make the folder, or continue an unfinished run in it; a finished run is not changed.

        Args:
            config: the content of ``config.toml``.
            folds: the content of ``folds.json``.
            stored: modality → the encoder's numbers of the cached layers.
            device: the device of the run.
            threads: the threads of a training, ``None`` if they are known only at the end.

        Raises:
            UsageError: the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._exists_already()
        if any(not name.startswith(TEMPORARY) for name in self.folder.names()):
            self._require_same(config, folds, stored)
        if self.finished:
            return
        self.folder.make()
        # First, and by one process alone: this file tells other processes whose folder it is.
        if not self.folder.create("config.toml", tomli_w.dumps(config).encode()):
            self._require_same(config, folds, stored)
            self._write("config.toml", tomli_w.dumps(config))  # the cache may have moved
        for folder in (self.checkpoints, self.trainings):
            folder.make()
        self._write("folds.json", folds)
        self._write_json("environment.json", _environment(device, threads))

    def saved_states(self) -> dict[str, int]:
        """Return when the state of each unfinished training was saved, by the file's name (ns)."""
        states: dict[str, int] = {}
        for path in self.trainings.at.glob("*.state.safetensors"):
            with suppress(FileNotFoundError):  # finished meanwhile
                states[path.name] = path.stat().st_mtime_ns
        return states

    def config(self) -> dict[str, Any]:
        """Return the content of ``config.toml``.

        Raises:
            UsageError: the folder is not a run folder.
        """
        try:
            return tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(
                f"'{self.path}' is not the folder of a run: give the folder that a training wrote"
            ) from None

    def folds(self, examples: TrainingExamples) -> list[Fold]:
        """Return the folds of the run.

        Raises:
            UsageError: an utterance of a fold is not among the examples.
        """
        utterances = {utterance.id: utterance for utterance in examples.utterances}
        folds = self.read_json("folds.json")["folds"]
        missing = {id for fold in folds for part in PARTS for id in fold[part]} - set(utterances)
        if missing:
            raise UsageError(
                f"{self.path}: the cache no longer holds {len(missing)} of the run's utterances, "
                f"such as '{min(missing)}': extract them again"
            )
        return [
            Fold(fold["fold"], *(tuple(utterances[id] for id in fold[part]) for part in PARTS))
            for fold in folds
        ]

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of the folder.

        Raises:
            UsageError: the file is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(
                f"'{self.path / name}' is missing or damaged: give the folder of a finished run"
            ) from None

    def finish(
        self,
        names: Sequence[str],
        targets: Targets,
        predicted: Sequence[tuple[Fold, int, Tensor]],
        metrics: Mapping[str, Any],
        used: Mapping[str, Collection[Any]],
    ) -> None:
        """Write the results, ``metrics.json`` last; delete ``trainings/`` if all folds are in them.

        Results of ``mser evaluate`` are deleted: they are those of fewer folds.

        Args:
            names: of the trainings.
            targets: what is predicted.
            predicted: each fold and seed with its (utterances, outputs) predictions.
            metrics: the content of ``metrics.json``.
            used: ``threads`` and ``cpu`` of the trainings, as far as they are known;
                ``environment.json`` has the value of each, or a list if they differ.
        """
        environment = self.read_json("environment.json")
        for name, values in used.items():
            if values:
                environment[name] = next(iter(values)) if len(values) == 1 else sorted(values)
        self._write_json("environment.json", environment)
        logs = [self.trainings.read(f"{name}.jsonl").decode() for name in names]
        self._write("log.jsonl", "".join(logs))
        self._write("predictions.csv", _predictions(targets, predicted))
        for name in self.folder.names():
            if name == "again.json" or name.startswith("without-"):
                self.folder.remove(name)
        self._write_json("metrics.json", metrics)
        if self.finished:
            self.clean()

    def clean(self) -> None:
        """Delete ``trainings/``, and the files that killed processes left."""
        self.folder.remove("trainings")
        for folder in (self.folder, self.checkpoints):
            for name in folder.names():
                if name.startswith(TEMPORARY):
                    with suppress(FileNotFoundError):  # its writer has just renamed it
                        if folder.age(name) > _ABANDONED:
                            folder.remove(name)
        for name, lease in read_leases(self.folder).items():
            if lease is None or not lease.alive:
                self.folder.remove(name)

    @property
    def _metrics_exist(self) -> bool:
        return (self.path / "metrics.json").exists()

    def _metrics(self) -> dict[str, Any]:
        metrics = self.read_json("metrics.json")
        return metrics if isinstance(metrics, dict) and "folds" in metrics else {"folds": []}

    def _require_same(
        self, config: Mapping[str, Any], folds: str, stored: Mapping[str, Sequence[int]]
    ) -> None:
        if not (self.path / "config.toml").exists():
            raise self._exists_already()
        old = self.config()
        if old.get("encoders") == config["encoders"]:  # else the stored layers are others too
            old = migrated_config(old, lambda: stored)
        before = _flat(_compared(old))
        now = _flat(_compared(tomllib.loads(tomli_w.dumps(config))))
        # A setting that differs may be why the features do.
        for key in sorted(set(before) | set(now), key=lambda key: (key == "digest", key)):
            if before.get(key) != now.get(key):
                if key == "digest":
                    raise UsageError(
                        f"'{self.path}' was trained on other features, labels or utterances than "
                        "the cache holds now: give another folder with --out"
                    )
                raise UsageError(
                    f"'{self.path}' belongs to another run, with {key} {_shown(before, key)} and "
                    f"not {_shown(now, key, '')}: give another folder with --out"
                )
        known = self.path / "folds.json"  # written after the configuration
        if known.exists() and known.read_text(encoding="utf-8") != folds:
            raise UsageError(
                f"'{self.path}' was started with other folds than the protocol gives now: give "
                "another folder with --out"
            )

    def _exists_already(self) -> UsageError:
        return UsageError(
            f"'{self.path}' already exists and is not the folder of a run: give another folder "
            "with --out"
        )

    def _write(self, name: str, text: str) -> None:
        self.folder.write(name, text.encode())

    def _write_json(self, name: str, value: Any) -> None:
        self._write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cache_of_run(run: Path, config: Mapping[str, Any]) -> str:
    """Return the folder or URL of the cache of a run; a relative one is in the run folder.

    Only a run that was pulled from the hub has a relative one.
    """
    place = str(config["cache"])
    return place if "://" in place or Path(place).is_absolute() else str(run / place)


def training_name(fold: str, seed: int) -> str:
    """Return the name of the files of a training."""
    return f"{quote(fold, safe='')}-seed{seed}"  # a session may be named a/b


def migrated_config(
    config: Mapping[str, Any], stored: Callable[[], Mapping[str, Sequence[int]]]
) -> dict[str, Any]:
    """Return the content of a ``config.toml`` in the current format.

    ``stored`` gives modality → the encoder's numbers of the cached layers; it is called only where
    the layers of an older run depend on them.
    """
    migrated = dict(config)
    if names_layers_by_position(config):
        migrated["layer"] = renumbered(config["layer"], stored())
    if config.get("format", 1) < 3:
        head = config["head"]
        migrated.setdefault("standardise", False)
        migrated["head_options"] = former_options(head, config["head_options"])
        layer = former_layer(head, migrated.get("layer"), stored)
        migrated |= {} if layer is None else {"layer": layer}
    if config.get("format", 1) < 4:
        migrated.setdefault("ema", 0.0)
    if config.get("format", 1) < 5:
        layer = former_text_layer(config["head"], migrated.get("layer"), config["encoders"])
        migrated |= {} if layer is None else {"layer": layer}
    return migrated | {"format": CONFIG_FORMAT}


def names_layers_by_position(config: Mapping[str, Any]) -> bool:
    """Whether the ``layer`` of a configuration holds positions among the cached layers."""
    return "format" not in config and has_numbers(config.get("layer", ""))


def named_by_content(runs: Path, config: Mapping[str, Any]) -> Path:
    """Return the folder below ``runs`` whose name ends with a hash of the configuration.

    The hash leaves out where the cache is, the format of the configuration, and options at the
    default of the head. The features themselves are in it by their digest.
    """
    content = hashlib.sha256(tomli_w.dumps(_compared(config)).encode()).hexdigest()
    return runs / f"{config['dataset']}-{short_name(config['head'])}-{content[:8]}"


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that tells two runs apart."""
    compared = {key: value for key, value in config.items() if key not in _NOT_COMPARED}
    options = in_one_form(config.get("head", ""), config.get("head_options", {}))
    return compared | {"head_options": options}


def folds_json(folds: Sequence[Fold], excluded: Mapping[str, str]) -> str:
    """Return ``folds.json``: the ids of every part, and the reason for each excluded utterance."""
    parts = [
        {"fold": fold.name, **{part: [u.id for u in fold.part(part)] for part in PARTS}}
        for fold in folds
    ]
    return json.dumps({"folds": parts, "excluded": dict(excluded)}, indent=2) + "\n"


def _environment(device: torch.device, threads: int | None) -> dict[str, Any]:
    """Return what the result may depend on in addition to the settings."""
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
        "cpu": torch.backends.cpu.get_cpu_capability(),  # which instructions PyTorch computes with
    }


def _predictions(targets: Targets, predicted: Sequence[tuple[Fold, int, Tensor]]) -> str:
    """Return what is known and predicted of every test utterance, and its groups, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", *header(targets), "fold", "seed", *COLUMNS])
    for fold, seed, values in predicted:
        for utterance, row in zip(fold.test, values.tolist(), strict=True):
            groups = [getattr(utterance, column) for column in COLUMNS]
            found = cells(targets, utterance, row)
            writer.writerow([utterance.id, *found, fold.name, seed, *groups])
    return text.getvalue()


def _shown(values: Mapping[str, Any], key: str, equals: str = "= ") -> str:
    """Return a setting as text; one that is not in a configuration is at its default."""
    if key in values:
        return f"{equals}{values[key]!r}"
    return "at its default" if equals else "its default"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
