"""The base class of all encoder families: settings, layers, loading, encoding in batches."""

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
from ..errors import PipelineError, UsageError, unknown
from ..layers import parse_layers
from ..plugins import Origin
from .checkpoint_files import EncoderFiles
from .frame_choice import DEFAULT_FRAMES, FrameChoice
from .frame_means import ALL_FRAMES, FrameMeans
from .windows import Window, WindowPosition, in_batches, stacked

Raw = TypeVar("Raw")  # an utterance before encoding: a wave or a text

TF32 = "tf32"  # float32 whose products a GPU rounds to 10 bits
PRECISIONS = {
    "float32": None,
    TF32: None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Frames in one forward pass, padding included: the limit on the memory of a batch. The first
# convolutions of wav2vec2 take about 0.4 MB a frame.
_FRAMES_AT_ONCE = {"cpu": 2048, "cuda": 16_384}
# Parameters that may be missing, because the hidden states do not depend on them.
_UNUSED = ("pooler", "masked_spec_embed", "position_ids")


def _is_thread_safe() -> bool:
    """Return whether two threads may run one model at once.

    Versions of transformers without this module collect hidden states by changing the model during
    the forward pass. Looking for the file is fast; importing transformers takes seconds.
    """
    package = find_spec("transformers")
    folders = (package and package.submodule_search_locations) or ()
    return any((Path(folder) / "utils" / "output_capturing.py").exists() for folder in folders)


THREAD_SAFE = _is_thread_safe()


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that is needed to load an encoder; it can be sent to a worker."""

    files: EncoderFiles
    """The files of the encoder."""
    model_type: str
    """The family, as in the configuration of transformers."""
    layers: str = "all"
    """``all`` (default), ``last`` or numbers such as ``0,6,12``; 0 is the input of the first
    transformer layer, n the output of the last."""
    precision: str = "float32"
    """Of the forward pass: ``float32`` (default), ``bfloat16``, ``float16``, or on a GPU ``tf32``:
    float32 with products that are rounded to 10 bits."""
    device: str = "auto"
    """``auto`` (default), ``cpu`` or ``cuda``."""
    max_seconds: float = 30.0
    """Longer audio is encoded in overlapping windows of this length, in seconds; default 30."""
    frames: FrameChoice = DEFAULT_FRAMES
    """Which frames of a video are encoded; other modalities do not use this."""
    means: FrameMeans = ALL_FRAMES
    """Which frames are stored as one, their mean; default: every frame is stored."""


class Encoder(ABC, Generic[Raw]):
    """A frozen encoder with all its hidden layers.

    The constructor reads only the configuration; the weights are loaded at their first use.

    Attributes:
        modality: such as ``speech``.
        layers: the numbers of the layers that ``encode`` returns.
        dim: the width of the hidden states.
        device: on which the encoder computes.
        padded: whether utterances of different lengths share a forward pass: on a GPU, if the
            family is ``exact_when_padded``. On a CPU padding only costs time.
        code: where the code comes from, if the encoder is of a plug-in.
    """

    modality: ClassVar[str]
    code: Origin | None = None
    padding: int = 0  # fills the rest of a row; no feature depends on it

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self.device = chosen_device(settings.device)
        if settings.precision not in PRECISIONS:
            raise unknown("precision", settings.precision, PRECISIONS)
        if settings.precision == TF32 and self.device.type != "cuda":
            raise UsageError("precision tf32 needs a GPU: give float32, or --device cuda")
        self.padded = self.device.type == "cuda" and self.exact_when_padded
        self.frames_at_once = _FRAMES_AT_ONCE[self.device.type]
        self._loading = threading.Lock()
        self._computing: AbstractContextManager[Any] = nullcontext()
        if not THREAD_SAFE or self.device.type == "cuda":
            # Two batches at once would take twice the GPU memory, and no less time.
            self._computing = threading.Lock()
        n_layers, self.dim = self.shape()
        self.layers = chosen_layers(settings.layers, n_layers)

    def __repr__(self) -> str:
        """Return the modality, the name, the layers, the width, the device and the precision."""
        layers = ",".join(map(str, self.layers))
        return (
            f"<{self.modality} encoder {self.name}: layers {layers}, {self.dim} wide, "
            f"{self.device}, {self.settings.precision}>"
        )

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        from transformers import AutoConfig  # noqa: PLC0415 -- seconds to import

        return AutoConfig.from_pretrained(self.settings.files.folder, local_files_only=True)

    @property
    def exact_when_padded(self) -> bool:
        """Whether padding leaves features unchanged; if not, only equal lengths share a pass."""
        return True

    @property
    def input_bytes(self) -> int:
        """The size in memory of the input of a frame, if it may be larger than the frame."""
        return 0

    @property
    def name(self) -> str:
        """The hub name, or the name of the folder."""
        return self.settings.files.name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the features, as JSON values; with the code of a plug-in."""
        code = {} if self.code is None else self.code.as_json()
        return {**self.own_identity(), **self.settings.means.identity} | {
            key: code[name]
            for key, name in (("code", "sha256"), ("distribution", "distribution"))
            if name in code
        }

    def own_identity(self) -> dict[str, Any]:
        """Return what changes the hidden states, besides the code of a plug-in."""
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
        """The frozen model, loaded by the first thread that needs it.

        Raises:
            PipelineError: the files lack parameters, which would be random.
        """
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> torch.nn.Module:
        if self.device.type == "cuda" and PRECISIONS[self.settings.precision] is None:
            # By default a GPU rounds convolutions to 10 bits, differently for each length.
            torch.backends.cudnn.allow_tf32 = self.settings.precision == TF32
            torch.backends.cuda.matmul.allow_tf32 = self.settings.precision == TF32
        return self.load().eval().requires_grad_(False).to(self.device)

    def encode(self, inputs: Sequence[Raw], dtype: str = "float32") -> list[np.ndarray[Any, Any]]:
        """Encode utterances; each result equals that of the utterance encoded alone.

        ``inputs`` are waves (samples,) floating, mono at 16 kHz, or texts, or videos, each a
        sequence of frames (height, width, 3) uint8, RGB.

        Several threads may call this at once. If a batch does not fit into the memory of the GPU,
        this batch and all later ones become half as large.

        Returns:
            One array (layers, frames, dim) of ``dtype``, float32 or float16, for each input, in the
            order of the inputs. Values that are too large for float16 are infinite.

        Raises:
            UsageError: a wave is not one-dimensional, or not floating.
            torch.OutOfMemoryError: an utterance alone does not fit into the GPU's memory.
        """
        means = self.settings.means
        full = dtype if means == ALL_FRAMES else "float32"  # means are rounded once
        windows, encoded = [], []
        for number, utterance in enumerate(inputs):
            start = 0
            for window in self.prepare(utterance):
                windows.append(WindowPosition(window, number, start))
                start += window.frames
            encoded.append(np.empty((len(self.layers), start, self.dim), full))
        batches = list(in_batches(windows, self.frames_at_once, padded=self.padded))[::-1]
        while batches:
            batch = batches.pop()
            try:
                states = self._forward([item.window for item in batch], full)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                torch.cuda.empty_cache()
                frames = len(batch) * max(item.window.positions for item in batch)
                self.frames_at_once = min(self.frames_at_once, frames // 2)
                rest = [item for unfinished in (batch, *batches) for item in unfinished]
                batches = list(in_batches(rest, self.frames_at_once, padded=self.padded))[::-1]
                continue
            for row, item in zip(states, batch, strict=True):
                kept = row[:, item.window.kept]
                encoded[item.utterance][:, item.start : item.start + kept.shape[1]] = kept
        if means == ALL_FRAMES:
            return encoded
        with np.errstate(over="ignore"):  # what is too large for float16 is infinite
            return [means.of(states).astype(dtype) for states in encoded]

    def _forward(self, windows: Sequence[Window], dtype: str) -> np.ndarray[Any, Any]:
        """Run the model and return (batch, layers, positions, dim)."""
        values, lengths = stacked(windows, self.padding)
        with torch.inference_mode(), self._computing:
            return _on_host(self.states(torch.from_numpy(values).to(self.device), lengths, dtype))

    def states(self, values: Tensor, lengths: Sequence[int], dtype: str) -> Tensor:
        """Run the model on (batch, …, time) in the precision of the settings.

        ``lengths`` are the lengths of the rows without their padding.

        Returns:
            The hidden states of ``layers``, (batch, layers, positions, dim) of ``dtype``.
        """
        half, model = PRECISIONS[self.settings.precision], self.model
        autocast = torch.autocast(
            self.device.type, dtype=half or torch.bfloat16, enabled=half is not None
        )
        with torch.inference_mode():
            with autocast:
                states = self.hidden_states(model, values, lengths)
            return torch.stack(
                [states[layer].to(getattr(torch, dtype)) for layer in self.layers], 1
            )

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on (batch, …, time), and return (batch, positions, dim) for each layer.

        ``lengths`` are the lengths of the rows without their padding.
        """
        mask = padding_mask(lengths, values)
        result = model(values, attention_mask=mask, output_hidden_states=True)
        return result.hidden_states  # type: ignore[no-any-return]

    def shape(self) -> tuple[int, int]:
        """Return the number of hidden layers, with the input of the first, and their width."""
        return self.config.num_hidden_layers + 1, int(self.config.hidden_size)

    def load(self) -> torch.nn.Module:
        """Load the model with its weights, on the CPU, in float32.

        Raises:
            PipelineError: the files lack parameters, which would be random.
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
        """Return the preprocessing that changes the hidden states, as JSON values."""

    @abstractmethod
    def prepare(self, utterance: Raw) -> list[Window]:
        """Turn an utterance into the input of the model: one window, or several if it is long."""

    @abstractmethod
    def frames(self, utterance: Raw) -> int:
        """Return how many frames the features of an utterance have."""

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


def padding_mask(lengths: Sequence[int], values: Tensor) -> Tensor | None:
    """Return the attention mask (batch, time), 0 for padding, else 1; ``None`` without padding."""
    if min(lengths) == values.shape[-1]:
        return None
    ends = torch.tensor(lengths, device=values.device)
    return (torch.arange(values.shape[-1], device=values.device) < ends[:, None]).long()


def _on_host(states: Tensor) -> np.ndarray[Any, Any]:
    if states.device.type == "cpu":
        return states.numpy()
    # Copying to pinned memory is several times as fast, and the next batch uses it again.
    host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
    host.copy_(states, non_blocking=True)
    torch.cuda.current_stream(states.device).synchronize()
    return host.numpy()
