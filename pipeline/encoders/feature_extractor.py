"""Features without weights, such as a filter bank: a small base class, and its encoder."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...heads import HeadError
from ...heads.options import check_options
from ..errors import PipelineError, UsageError
from ..plugins import Origin, folders_of, is_spec, short_name
from .checkpoint_files import EncoderFiles
from .encoder import Encoder, EncoderSettings
from .speech import AUDIO_IDENTITY, checked_wave
from .windows import Window


class FeatureExtractor(ABC):
    """Features that a function computes of one utterance: a wave in, frames out.

    The keyword-only parameters of the constructor are the parameters of the extractor: they can be
    given as ``name(parameter=value)``, and their values are part of the identity of its features.
    They need type hints and defaults that JSON can hold. The file of a plug-in is part of the
    identity too, so changed code has features of its own.

    Attributes:
        modality: ``speech`` (default), or ``text``.
        dim: the width of a frame.
        frame_seconds: about the time from one frame to the next, to plan the work; default 10 ms.
    """

    modality: ClassVar[str] = "speech"
    dim: int
    frame_seconds: float = 0.01

    @abstractmethod
    def extract(self, utterance: Any) -> np.ndarray[Any, Any]:
        """Return the features of one utterance.

        Args:
            utterance: a wave (samples,) float32, mono at 16 kHz; for ``text`` a ``str``.

        Returns:
            (frames, dim) floating, or one vector (dim,), which is one frame. With no frames, the
            utterance counts as too short.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return what else changes the numbers, such as the version of a library; JSON values."""
        return {}


@dataclass(frozen=True)
class ExtractorFiles(EncoderFiles):
    """The code and the parameters of a feature extractor, in place of the files of an encoder."""

    kind: str
    """The key of the class in the table of encoders."""
    origin: Origin | None
    """Where the code comes from; ``None`` for mser's own."""
    parameters: tuple[tuple[str, Any], ...]
    """The parameters that were given."""

    @property
    def source(self) -> str:
        """The name with which the extractor is loaded again."""
        return _with_parameters(self.kind, self.parameters)

    @property
    def shared(self) -> tuple[Path, ...]:
        """The folders that a worker must see: that of the file of a plug-in."""
        return tuple(folders_of([self.kind]))


def extractor_files(
    kind: str, origin: Origin | None, parameters: Mapping[str, Any]
) -> ExtractorFiles:
    """Return what stands for the files of an extractor."""
    given = tuple(sorted(parameters.items()))
    folder = Path(kind.rpartition(":")[0]).parent if is_spec(kind) else Path(__file__).parent
    name = _with_parameters(short_name(kind), given)
    return ExtractorFiles(name, folder, kind, origin, given)


class ExtractorEncoder(Encoder[Any]):
    """A feature extractor as an encoder with one layer, number 0, and the identity as its model.

    Each utterance is computed alone, so its features cannot depend on its batch.
    """

    def __init__(self, settings: EncoderSettings, kind: type[FeatureExtractor]) -> None:
        assert isinstance(settings.files, ExtractorFiles)  # noqa: S101 -- load_encoder made it
        self.files = settings.files
        given = dict(self.files.parameters)
        label = short_name(self.files.kind)
        try:
            check_options(label, kind, given)
            self.extractor = kind(**given)
        except (HeadError, ValueError) as error:
            raise UsageError(str(error)) from error
        self.parameters = _defaults(kind, label) | given
        self.modality = kind.modality  # type: ignore[misc]  # of the extractor, not of the class
        super().__init__(settings)

    def shape(self) -> tuple[int, int]:
        """Return one layer, and the width of a frame."""
        dim = getattr(self.extractor, "dim", None)
        if not isinstance(dim, int) or dim < 1:
            raise UsageError(f"the encoder {self.files.kind} has dim = {dim!r}: set its width")
        return 1, dim

    def load(self) -> torch.nn.Module:
        """Return the identity: the features are computed by :meth:`prepare`."""
        return torch.nn.Identity()

    def own_identity(self) -> dict[str, Any]:
        """Return what stands for the weights: the name, the parameters and the facts."""
        return {
            "extractor": short_name(self.files.kind),
            "parameters": json.loads(json.dumps(self.parameters)),
            **self.extractor.facts(),
            "precision": "float32",
            **self.input_identity(),
        }

    def input_identity(self) -> dict[str, Any]:
        """Return how the audio is read."""
        return dict(AUDIO_IDENTITY) if self.modality == "speech" else {}

    def prepare(self, utterance: Any) -> list[Window]:
        """Compute the features of an utterance, as one window."""
        if self.modality == "speech":
            utterance = checked_wave(utterance)
        features = np.asarray(self.extractor.extract(utterance), dtype=np.float32)
        frames = features[None] if features.ndim == 1 else features
        if frames.ndim != 2 or frames.shape[1] != self.dim:
            raise PipelineError(
                f"{self.files.kind} returned features of shape {features.shape}: return "
                f"(frames, {self.dim}), or one vector ({self.dim},)"
            )
        return [Window(frames.T, len(frames), slice(0, len(frames)))]

    def frames(self, utterance: Any) -> int:
        """Return 1 for an utterance that is not empty: how many there are shows in the features."""
        return min(len(utterance), 1)

    def planned_frames(self, source: Any, seconds: float) -> int:
        """Return about how many frames a clip of so many seconds will have."""
        return max(1, round(seconds / self.extractor.frame_seconds))

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Return the features (batch, frames, dim) as the one layer."""
        return [model(values).transpose(1, 2)]


def _defaults(kind: type[FeatureExtractor], label: str) -> dict[str, Any]:
    defaults = {}
    for parameter in signature(kind).parameters.values():
        if parameter.kind is not Parameter.KEYWORD_ONLY or parameter.default is Parameter.empty:
            raise UsageError(
                f"the parameter '{parameter.name}' of the encoder {label}: make it keyword-only, "
                "with a default"
            )
        defaults[parameter.name] = parameter.default
    try:
        json.dumps(defaults)
    except TypeError as error:
        raise UsageError(f"a default of the encoder {label} is not a JSON value: {error}") from None
    return defaults


def _with_parameters(name: str, parameters: Sequence[tuple[str, Any]]) -> str:
    if not parameters:
        return name
    return f"{name}({','.join(f'{key}={_text(value)}' for key, value in parameters)})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
