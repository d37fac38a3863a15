"""What every encoder family shares: settings, layers, loading, and encoding by equal lengths."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from ...device import chosen_device
from ...encoder_files import EncoderFiles
from ...errors import PipelineError, UsageError

Raw = TypeVar("Raw")  # what an utterance is before encoding: a wave, or a text

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Positions (frames or tokens) in one forward pass; bounds the memory of a batch.
_BUDGET = 2048
# Parameters that an encoder may lack: they do not take part in its hidden states.
_UNUSED = ("pooler", "masked_spec_embed", "position_ids")


@dataclass(frozen=True)
class EncoderSettings:
    """All that is needed to load an encoder, in a form that can be sent to a worker.

    ``layers`` is ``all``, ``last`` or numbers such as ``0,6,12``; 0 is the input of the first
    transformer layer, n the output of the last. ``precision`` is that of the forward pass.
    """

    files: EncoderFiles
    model_type: str
    layers: str = "all"
    precision: str = "float32"
    device: str = "auto"


class Encoder(ABC, Generic[Raw]):
    """A frozen encoder with all its hidden layers.

    Making one reads its configuration only; the weights are loaded when first used. ``layers`` are
    the numbers of its layers, ``dim`` their width, ``device`` where it computes.
    """

    modality: ClassVar[str]

    def __init__(self, settings: EncoderSettings) -> None:
        from transformers import AutoConfig  # noqa: PLC0415 -- seconds to import

        self.settings = settings
        self.device = chosen_device(settings.device)
        self.folder = settings.files.folder
        self.config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
        self.layers = chosen_layers(settings.layers, self.config.num_hidden_layers + 1)
        self.dim = int(self.config.hidden_size)
        if settings.precision not in PRECISIONS:
            raise UsageError(f"unknown precision '{settings.precision}': {', '.join(PRECISIONS)}")

    @property
    def name(self) -> str:
        """The hub name, or the name of the folder."""
        return self.settings.files.name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that changes the numbers, as JSON values."""
        files = self.settings.files
        return {
            "weights": files.weights_hash(),
            "config": files.config_hash(),
            "preprocessing": files.preprocessing_hash(),
            "precision": self.settings.precision,
            **self.input_identity(),
        }

    @cached_property
    def model(self) -> torch.nn.Module:
        """The frozen model.

        Raises:
            PipelineError: parameters are missing from the files, so that they would be random.
        """
        from transformers import AutoModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model, report = AutoModel.from_pretrained(
            self.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        missing = [
            key for key in report["missing_keys"] if not any(unused in key for unused in _UNUSED)
        ]
        if missing:
            raise PipelineError(
                f"the weights in {self.folder} lack {len(missing)} parameters ({missing[0]}, …), "
                "so its features would be random: download or save the encoder again"
            )
        return model.eval().requires_grad_(False).to(self.device)  # type: ignore[no-any-return]

    def encode(self, inputs: Sequence[Raw]) -> list[np.ndarray[Any, Any]]:
        """Encode utterances; each result equals encoding the utterance alone.

        Only inputs of equal length share a forward pass, so there is no padding that could leak
        into a feature, and none to compute.

        Returns:
            One array (layers, frames, dim), float32, for each input, in the order of the inputs.
        """
        pieces = [self.prepare(one) for one in inputs]
        by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for at, windows in enumerate(pieces):
            for number, window in enumerate(windows):
                by_length[len(window.values)].append((at, number))
        encoded: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        for places in by_length.values():
            first_at, first_number = places[0]
            size = max(1, _BUDGET // pieces[first_at][first_number].positions)
            for start in range(0, len(places), size):
                batch = places[start : start + size]
                values = np.stack([pieces[at][number].values for at, number in batch])
                for place, states in zip(batch, self._forward(values), strict=True):
                    at, number = place
                    encoded[place] = states[:, pieces[at][number].kept]
        return [
            np.concatenate([encoded[at, number] for number in range(len(windows))], axis=1)
            for at, windows in enumerate(pieces)
        ]

    def _forward(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Run the model on (batch, positions) and return (batch, layers, frames, dim)."""
        half = PRECISIONS[self.settings.precision]
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type, dtype=half or torch.bfloat16, enabled=half is not None
            ),
        ):
            inputs = torch.from_numpy(values).to(self.device)
            states = self.model(inputs, output_hidden_states=True).hidden_states
            chosen = torch.stack([states[layer] for layer in self.layers], dim=1)
        return chosen.float().cpu().numpy()

    @abstractmethod
    def input_identity(self) -> dict[str, Any]:
        """Return what changes the numbers before the model sees them, as JSON values."""

    @abstractmethod
    def prepare(self, one: Raw) -> "list[Window]":
        """Turn an utterance into what the model takes: one window, or several if it is long."""

    @abstractmethod
    def frames(self, one: Raw) -> int:
        """Return how many frames the utterance will have."""


@dataclass(frozen=True)
class Window:
    """A part of an utterance that goes through the model at once.

    ``values`` is (samples,) float32 or (tokens,) int64; ``positions`` how many frames come out;
    ``kept`` which of them are the utterance's, where windows overlap.
    """

    values: np.ndarray[Any, Any]
    positions: int
    kept: slice


def chosen_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Turn ``all``, ``last`` or ``0,6,12`` into layer numbers below ``n_layers``.

    Raises:
        UsageError: the text is none of these, or the encoder has no such layer.
    """
    if text == "all":
        return tuple(range(n_layers))
    if text == "last":
        return (n_layers - 1,)
    try:
        layers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(f"layers '{text}': say all, last, or numbers such as 0,6,12") from None
    if layers[0] < 0 or layers[-1] >= n_layers:
        raise UsageError(f"layers '{text}': this encoder has the layers 0 to {n_layers - 1}")
    return layers
