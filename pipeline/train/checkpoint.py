"""The state of a training in one file, from which it goes on exactly as if it had not stopped.

Tensors and JSON in safetensors: nothing is pickled, so that loading it runs no code.
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

_FACTS = "mser"


@dataclass
class Progress:
    """How far a training is.

    ``best`` is what ``monitor`` and the loss were in the best epoch, larger being better;
    ``validation`` are the scores of that epoch, and ``weights`` the head's in it.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] | None = None
    validation: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """Everything that the rest of a training depends on."""

    head: Head
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    order: torch.Generator
    device: torch.device

    def save(self, folder: LocalFolder, name: str, progress: Progress) -> None:
        """Write the state; the old one stays whole until the new one is."""
        tensors = _named("head", self.head.state_dict()) | _named("best", progress.weights)
        for at, values in self.optimizer.state_dict()["state"].items():
            tensors |= _named(f"optimizer.{at}", values)
        tensors["order"] = self.order.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = asdict(progress)
        facts.pop("weights")
        facts["scaler"] = self.scaler.state_dict()
        folder.write(name, to_safetensors(tensors, facts))

    def restore(self, folder: LocalFolder, name: str) -> Progress:
        """Take up a state that was saved, and return how far it is; an empty one if there is none.

        Raises:
            PipelineError: the file is damaged, or is that of another head.
        """
        if not (folder.at / name).exists():
            return Progress()
        tensors, facts = from_safetensors(folder, name)
        try:
            self.head.load_state_dict(_below("head", tensors))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _below("optimizer", tensors).items():
                at, _, moment = key.partition(".")
                moments.setdefault(int(at), {})[moment] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.scaler.load_state_dict(facts.pop("scaler"))
            self.order.set_state(tensors["order"])
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
            facts["best"] = None if facts["best"] is None else tuple(facts["best"])
            return Progress(**facts, weights=_below("best", tensors))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _strange(folder, name) from error


def to_safetensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return tensors and JSON values as the bytes of a safetensors file."""
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content: bytes = save(on_cpu, {_FACTS: json.dumps(facts)})
    return content


def from_safetensors(folder: LocalFolder, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`packed` made.

    Raises:
        PipelineError: it is damaged.
    """
    try:
        with safe_open(folder.at / name, "pt") as file:
            facts = json.loads(file.metadata()[_FACTS])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _strange(folder, name) from error


def _strange(folder: LocalFolder, name: str) -> PipelineError:
    return PipelineError(
        f"{folder.at / name} is damaged or of another version: delete it to train that part anew"
    )


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
