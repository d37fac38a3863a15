"""What every encoder family shares: settings, layers, loading, and encoding in batches."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..compute.device import chosen_device
from ..errors import PipelineError, UsageError
from ..layers import parse_layers
from .checkpoint_files import EncoderFiles
from .windows import Window, WindowPosition, in_batches, stacked

Raw = TypeVar("Raw")  # what an utterance is before encoding: a wave, or a text

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Frames in one forward pass, padding included; bounds the memory of a batch. wav2vec2's first
# convolutions take about 0.4 MB a frame.
_FRAMES_AT_ONCE = {"cpu": 2048, "cuda": 16_384}
# Parameters that an encoder may lack: they do not take part in its hidden states.
_UNUSED = ("pooler", "masked_spec_embed", "position_ids")


def _is_thread_safe() -> bool:
    """Say whether two threads may run one model at once.

    Before this module came, transformers gathered hidden states by changing the model during the
    forward pass. Looking for a file takes no time; importing transformers takes seconds.
    """
    found = find_spec("transformers")
    folders = (found and found.submodule_search_locations) or ()
    return any((Path(one) / "utils" / "output_capturing.py").exists() for one in folders)


THREAD_SAFE = _is_thread_safe()


@dataclass(frozen=True)
class EncoderSettings:
    """All that is needed to load an encoder, in a form that can be sent to a worker.

    ``layers`` is ``all``, ``last`` or numbers such as ``0,6,12``; 0 is the input of the first
    transformer layer, n the output of the last. ``precision`` is that of the forward pass.
    Audio of more than ``max_seconds`` is encoded in windows of so many.
    """

    files: EncoderFiles
    model_type: str
    layers: str = "all"
    precision: str = "float32"
    device: str = "auto"
    max_seconds: float = 30.0


class Encoder(ABC, Generic[Raw]):
    """A frozen encoder with all its hidden layers.

    Making one reads its configuration only; the weights are loaded when first used. ``layers`` are
    the numbers of its layers, ``dim`` their width, ``device`` where it computes.

    ``padded`` says whether utterances of different lengths share a forward pass. It is so on a GPU,
    if the family is ``exact_when_padded``; on a CPU padding is lost time.
    """

    modality: ClassVar[str]
    padding: int = 0  # what fills the rest of a row; never seen by a feature

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self.device = chosen_device(settings.device)
        if settings.precision not in PRECISIONS:
            raise UsageError(f"unknown precision '{settings.precision}': {', '.join(PRECISIONS)}")
        self.padded = self.device.type == "cuda" and self.exact_when_padded
        self.frames_at_once = _FRAMES_AT_ONCE[self.device.type]
        self._loading = threading.Lock()
        self._computing: AbstractContextManager[Any] = nullcontext()
        if not THREAD_SAFE:
            self._computing = threading.Lock()
        elif self.device.type == "cuda":
            # While one computes, another copies; more would only take the GPU's memory.
            self._computing = threading.Semaphore(2)
        n_layers, self.dim = self.shape()
        self.layers = chosen_layers(settings.layers, n_layers)

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        from transformers import AutoConfig  # noqa: PLC0415 -- seconds to import

        return AutoConfig.from_pretrained(self.settings.files.folder, local_files_only=True)

    @property
    def exact_when_padded(self) -> bool:
        """Whether padding can be kept out; if not, only equal lengths share a pass."""
        return True

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

    @property
    def model(self) -> torch.nn.Module:
        """The frozen model, loaded once, whichever thread asks first.

        Raises:
            PipelineError: parameters are missing from the files, so that they would be random.
        """
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> torch.nn.Module:
        if self.device.type == "cuda" and PRECISIONS[self.settings.precision] is None:
            # Convolutions are rounded to 10 bits on a GPU otherwise, differently at each length.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        return self.load().eval().requires_grad_(False).to(self.device)

    def encode(self, inputs: Sequence[Raw], dtype: str = "float32") -> list[np.ndarray[Any, Any]]:
        """Encode utterances; each result equals encoding the utterance alone.

        Safe to call from several threads at once. A batch that does not fit into the GPU's memory
        is halved, and so are those after it.

        Returns:
            One array (layers, frames, dim) of ``dtype``, float32 or float16, for each input, in the
            order of the inputs. What is too large for float16 is infinite.

        Raises:
            torch.OutOfMemoryError: an utterance alone does not fit into the GPU's memory.
        """
        places, encoded = [], []
        for utterance, one in enumerate(inputs):
            start = 0
            for window in self.prepare(one):
                places.append(WindowPosition(window, utterance, start))
                start += window.frames
            encoded.append(np.empty((len(self.layers), start, self.dim), dtype))
        batches = list(in_batches(places, self.frames_at_once, padded=self.padded))[::-1]
        while batches:
            batch = batches.pop()
            try:
                states = self._forward([place.window for place in batch], dtype)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                torch.cuda.empty_cache()
                frames = len(batch) * max(place.window.positions for place in batch)
                self.frames_at_once = min(self.frames_at_once, frames // 2)
                rest = [place for one in (batch, *batches) for place in one]
                batches = list(in_batches(rest, self.frames_at_once, padded=self.padded))[::-1]
                continue
            for row, place in zip(states, batch, strict=True):
                kept = row[:, place.window.kept]
                encoded[place.utterance][:, place.start : place.start + kept.shape[1]] = kept
        return encoded

    def _forward(self, windows: Sequence[Window], dtype: str) -> np.ndarray[Any, Any]:
        """Run the model and return (batch, layers, positions, dim)."""
        half = PRECISIONS[self.settings.precision]
        values, lengths = stacked(windows, self.padding)
        model = self.model
        # On a GPU each call has a stream of its own: while one copies, another computes.
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type, dtype=half or torch.bfloat16, enabled=half is not None
            ),
            torch.cuda.stream(_stream(self.device)),
            self._computing,
        ):
            states = self.hidden_states(model, torch.from_numpy(values).to(self.device), lengths)
            chosen = torch.stack([states[at].to(getattr(torch, dtype)) for at in self.layers], 1)
            return _on_host(chosen)

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on (batch, …, time), and return (batch, positions, dim) for each layer.

        What lies behind the ``lengths`` of ``values`` is padding.
        """
        mask = None
        if min(lengths) < values.shape[-1]:
            mask = _mask(lengths, values)
        result = model(values, attention_mask=mask, output_hidden_states=True)
        return result.hidden_states  # type: ignore[no-any-return]

    def shape(self) -> tuple[int, int]:
        """Return how many hidden layers there are, the first's input counted, and the width."""
        return self.config.num_hidden_layers + 1, int(self.config.hidden_size)

    def load(self) -> torch.nn.Module:
        """Load the model with its weights, on the CPU, in float32.

        Raises:
            PipelineError: parameters are missing from the files, so that they would be random.
        """
        from transformers import AutoModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = self.settings.files.folder
        model, report = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        missing = [
            key for key in report["missing_keys"] if not any(unused in key for unused in _UNUSED)
        ]
        if missing:
            raise PipelineError(
                f"the weights in {folder} lack {len(missing)} parameters ({missing[0]}, …), "
                "so its features would be random: download or save the encoder again"
            )
        return model  # type: ignore[no-any-return]

    @abstractmethod
    def input_identity(self) -> dict[str, Any]:
        """Return what changes the numbers before the model sees them, as JSON values."""

    @abstractmethod
    def prepare(self, one: Raw) -> list[Window]:
        """Turn an utterance into what the model takes: one window, or several if it is long."""

    @abstractmethod
    def frames(self, one: Raw) -> int:
        """Return how many frames the utterance will have."""

    def planned_frames(self, source: Any, seconds: float) -> int:
        """Return how many frames an utterance will have, before its content is loaded.

        ``source`` is its path or its text, ``seconds`` its length if it has one, else 0.
        """
        return self.frames(source)


def chosen_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Return the layer numbers that ``all``, ``last`` or ``0,6,12`` stand for, in ascending order.

    Raises:
        UsageError: the text is none of these, or the encoder has no such layer.
    """
    chosen = parse_layers(text, ("all", "last"))
    if isinstance(chosen, str):
        return tuple(range(n_layers)) if chosen == "all" else (n_layers - 1,)
    layers = tuple(sorted(set(chosen)))
    if layers[-1] >= n_layers:
        raise UsageError(f"layers '{text}': this encoder has the layers 0 to {n_layers - 1}")
    return layers


def _mask(lengths: Sequence[int], values: Tensor) -> Tensor:
    """Return (batch, time): 1 where there is something, 0 where there is padding."""
    ends = torch.tensor(lengths, device=values.device)
    return (torch.arange(values.shape[-1], device=values.device) < ends[:, None]).long()


def _stream(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _on_host(states: Tensor) -> np.ndarray[Any, Any]:
    if states.device.type == "cpu":
        return states.numpy()
    # Pinned memory is several times as fast to copy to, and is used again by the next batch.
    host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
    host.copy_(states, non_blocking=True)
    torch.cuda.current_stream(states.device).synchronize()
    return host.numpy()
