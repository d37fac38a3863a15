"""The state of a training in one file, from which it continues as if it had not stopped.

The file holds tensors and JSON in safetensors. Nothing is pickled, so loading it runs no code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from ...cache.storage.local import LocalFolder
from ...heads import Head
from ..errors import PipelineError
from .weight_average import WeightAverage

_FACTS = "mser"


@dataclass
class TrainingProgress:
    """The finished epochs of a training, and the best of them.

    ``best`` holds the ``monitor`` and the loss of the best epoch, signed so that larger is better.
    ``validation`` are the scores of that epoch, and ``weights`` the weights of the head after it.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] | None = None
    validation: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainingState:
    """Everything that the rest of a training depends on."""

    head: Head
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    order: torch.Generator
    device: torch.device
    average: WeightAverage | None = None

    @property
    def tested(self) -> Head:
        """The head that is tested: that of the average, if there is one."""
        return self.head if self.average is None else self.average.head

    def save(self, folder: LocalFolder, name: str, progress: TrainingProgress) -> None:
        """Write the state; the old file is replaced only when the new one is complete."""
        tensors = _prefixed("head", self.head.state_dict()) | _prefixed("best", progress.weights)
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer.{number}", moments)
        if self.average is not None:
            tensors |= _prefixed("average", self.average.state_dict())
        tensors["order"] = self.order.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = asdict(progress)
        facts.pop("weights")
        facts["scaler"] = self.scaler.state_dict()
        folder.write(name, to_safetensors(tensors, facts))

    def restore(self, folder: LocalFolder, name: str) -> TrainingProgress:
        """Load a saved state into this one, and return its progress; no progress without a file.

        Raises:
            PipelineError: the file is damaged, or belongs to another head.
        """
        if not (folder.at / name).exists():
            return TrainingProgress()
        tensors, facts = from_safetensors(folder, name)
        try:
            self.head.load_state_dict(_with_prefix("head", tensors))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _with_prefix("optimizer", tensors).items():
                number, _, moment = key.partition(".")
                moments.setdefault(int(number), {})[moment] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            if self.average is not None:
                self.average.load_state_dict(_with_prefix("average", tensors))
            self.scaler.load_state_dict(facts.pop("scaler"))
            self.order.set_state(tensors["order"])
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
            facts["best"] = None if facts["best"] is None else tuple(facts["best"])
            return TrainingProgress(**facts, weights=_with_prefix("best", tensors))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _damaged(folder, name) from error


def to_safetensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return tensors and JSON values as the bytes of a safetensors file."""
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content: bytes = save(on_cpu, {_FACTS: json.dumps(facts)})
    return content


def from_safetensors(folder: LocalFolder, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and JSON values of a file that :func:`to_safetensors` made.

    Raises:
        PipelineError: the file is damaged.
    """
    try:
        with safe_open(folder.at / name, "pt") as file:
            facts = json.loads(file.metadata()[_FACTS])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, name) from error


def _damaged(folder: LocalFolder, name: str) -> PipelineError:
    return PipelineError(
        f"{folder.at / name} is damaged or was written by another version of mser: delete it to "
        "train that fold again"
    )


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
